"""The cache's folder: what else lies there stays, and one that goes away costs no guest a read."""

import shutil

import pytest

from cache_chain import CHUNK, SIZE, WORDS, Image, cached, now


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.mark.parametrize("name", ["database.data", "0123.data", f"{'F' * 32}.data", "x.map"])
async def test_what_others_keep_in_the_folder_is_never_evicted(folder, name):
    folder.mkdir()
    stranger = folder / name
    stranger.write_bytes(b"precious" * 10_000)
    async with cached(folder, size=20 * CHUNK) as made:
        for at in range(0, SIZE, CHUNK):
            await made.layer.read(at, 1)
        assert made.content.evicted, "something had to go"
    assert stranger.read_bytes() == b"precious" * 10_000


async def test_what_others_keep_in_the_folder_does_not_count(folder):
    folder.mkdir()
    (folder / "database.data").write_bytes(bytes(range(1, 256)) * 4000)
    async with cached(folder, size=64 * CHUNK) as made:
        for at in range(0, SIZE, CHUNK):
            await made.layer.read(at, 1)
        assert made.content.evicted == 0
        assert now(made.layer, 0, SIZE) == WORDS, "there is room for all of it"


async def test_a_folder_that_is_removed_meanwhile_costs_no_read(folder, caplog):
    async with cached(folder, size=1 << 20) as made:
        await made.layer.read(0, CHUNK)
        shutil.rmtree(folder)
        for at in range(0, SIZE, CHUNK):
            data = await made.layer.read(at, min(CHUNK, SIZE - at))
            assert data == WORDS[at : at + CHUNK]
    (warning,) = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert "nothing more is kept" in warning
    assert str(folder) in warning
    async with cached(folder) as made:
        assert await made.everything() == WORDS, "and it is made anew"


async def test_a_folder_that_is_removed_ends_no_filling(folder):
    image = Image(bytes(range(1, 251)) * 20_000)
    async with cached(folder, image, size=64 << 20) as made:
        await made.layer.read(0, CHUNK)
        shutil.rmtree(folder)
        await made.layer.cache(0, len(image.contents))
        assert await made.everything() == image.contents
