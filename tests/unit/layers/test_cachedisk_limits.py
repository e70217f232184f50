"""The cache on disk where things fail it: the disk is full or broken, the origin is away."""

import asyncio
import errno
import logging
import os
import time

import pytest

from cache_chain import CHUNK, SIZE, WORDS, Away, Image, cached, now, only
from cow_chain import file_size_limit
from nbdserve.build import ChainPool
from nbdserve.errors import DeviceError, SourceUnavailableError
from nbdserve.formats.cachemap import BLOCK
from nbdserve.layers.cache import CacheLayer
from nbdserve.layers.cacheparams import CacheParams
from nbdserve.spec import ExportSpec, parse_layer, parse_source
from webserver import silent, webserver


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


# Full and broken disks


@pytest.mark.parametrize("limit", [0, 3 * CHUNK, BLOCK, BLOCK + 40])
async def test_a_full_disk_is_one_warning_and_no_error(folder, caplog, limit):
    async with cached(folder) as made:
        with file_size_limit(limit):
            for at in range(0, SIZE, CHUNK):
                data = await made.layer.read(at, min(CHUNK, SIZE - at))
                assert data == WORDS[at : at + CHUNK]
        assert await made.everything() == WORDS
    assert len(warnings(caplog)) == 1
    assert "no room left for the cache" in caplog.text
    async with cached(folder) as made:
        assert await made.everything() == WORDS


async def test_a_disk_too_full_to_begin_is_one_warning_and_no_error(folder, caplog):
    with file_size_limit(100):
        async with cached(folder) as made:
            assert await made.everything() == WORDS
            assert await made.everything() == WORDS
    assert len(warnings(caplog)) == 1
    assert "no room for a cache at all" in caplog.text
    async with cached(folder) as made:
        assert await made.everything() == WORDS


async def test_a_full_disk_makes_room_out_of_what_is_cached(folder, monkeypatch):
    from nbdserve.cachestore.chunkfile import ChunkFile

    real = ChunkFile.write
    async with cached(folder) as made:
        await made.layer.read(0, 32 * CHUNK)

        def full(file, offset, data):
            if len(data) and os.fstat(file.fd).st_blocks * 512 > 31 * CHUNK:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(file, offset, data)

        monkeypatch.setattr(ChunkFile, "write", full)
        assert await made.layer.read(32 * CHUNK, CHUNK) == WORDS[32 * CHUNK : 33 * CHUNK]
        assert now(made.layer, 32 * CHUNK, 1) is None, "it was not kept"
        assert await made.layer.read(33 * CHUNK, CHUNK) == WORDS[33 * CHUNK : 34 * CHUNK]
        assert now(made.layer, 33 * CHUNK, CHUNK) is not None, "room was made for this one"
        assert made.layer.status()["limit"] < 34 * CHUNK


async def test_a_disk_that_cannot_be_read_is_read_around(folder, caplog):
    async with cached(folder) as made:
        await made.everything()
        with only(folder, ".data").open("r+b") as data:
            data.truncate(3 * CHUNK)
        assert await made.layer.read(5 * CHUNK, CHUNK) == WORDS[5 * CHUNK : 6 * CHUNK]
        assert await made.everything() == WORDS
    assert len(warnings(caplog)) == 1


async def test_a_disk_that_fails_to_write_is_one_warning_and_no_error(folder, caplog, monkeypatch):
    tried = []

    def broken(file, offset, data):
        tried.append(offset)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("nbdserve.cachestore.content._ASK_AGAIN", 0)
    async with cached(folder) as made:
        await made.layer.read(0, CHUNK)
        monkeypatch.setattr("nbdserve.cachestore.chunkfile.ChunkFile.write", broken)
        assert await made.everything() == WORDS
        await made.layer.cache(0, SIZE)
        assert await made.everything() == WORDS
        assert not made.layer.status()["writable"]
    assert len(tried) == 1, "it is left alone from then on"
    assert len(warnings(caplog)) == 1
    assert "nothing more of this image is kept" in caplog.text


async def test_what_the_kernel_may_have_lost_is_dropped(folder, caplog, monkeypatch):
    def broken(file):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async with cached(folder) as made:
        await made.layer.read(0, 16 * CHUNK)
        await made.content.tend()
        await made.layer.read(16 * CHUNK, CHUNK)
        with monkeypatch.context() as failing:
            failing.setattr("nbdserve.cachestore.chunkfile.ChunkFile.sync", broken)
            await made.content.tend()
        assert now(made.layer, 15 * CHUNK, CHUNK) is not None, "written before for certain"
        assert now(made.layer, 16 * CHUNK, CHUNK) is None
        assert await made.everything() == WORDS
    assert "the disk of the cache fails" in caplog.text


async def test_where_nothing_can_be_evicted_no_more_is_kept(folder, caplog, monkeypatch):
    def refuse(*call):
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr("nbdserve.cachestore.chunkfile.fallocate", refuse)
    async with cached(folder, size=20 * CHUNK) as made:
        for at in range(0, SIZE, CHUNK):
            assert await made.layer.read(at, 100) == WORDS[at : at + 100]
        assert now(made.layer, 0, CHUNK) == WORDS[:CHUNK], "and what there is stays"
        assert made.content.evicted == 0
    assert "no holes can be punched" in warnings(caplog)[0]


# Filling in the background


async def until(predicate):
    async with asyncio.timeout(60):
        while not predicate():  # noqa: ASYNC110 -- what makes it true sets no event
            await asyncio.sleep(0.001)


async def test_it_fills_until_the_origin_is_no_longer_needed(folder, caplog):
    caplog.set_level(logging.INFO)
    async with cached(folder, fill="background") as made:
        await made.layer.read(7 * CHUNK, CHUNK)
        await until(lambda: made.layer.status()["fill"] == "done")
        assert made.layer.status()["fill_done"] == 1.0
        assert now(made.layer, 0, SIZE) == WORDS
    assert "the origin is no longer needed" in caplog.text
    async with cached(folder, fill="background") as made:
        made.faults.fail("read", error=SourceUnavailableError("gone"), times=None)
        assert await made.everything() == WORDS
        await until(lambda: made.layer.status()["fill"] == "done")


async def test_it_fills_no_faster_than_it_may(folder):
    image = Image(bytes(range(1, 251)) * 20_000)  # five runs
    begin = time.monotonic()
    async with cached(folder, image, size=16 << 20, fill="background", fill_rate=20 << 20) as made:
        await until(lambda: made.layer.status()["fill"] == "done")
    assert time.monotonic() - begin >= 4 / 20, "the first run is free, each other waits its turn"


async def test_it_fills_on_when_the_origin_is_back(folder, caplog, monkeypatch):
    monkeypatch.setattr("nbdserve.layers.cachefill._FIRST_PAUSE", 0)
    caplog.set_level(logging.INFO)
    async with cached(folder, fill="background") as made:
        made.faults.fail("read", error=SourceUnavailableError("for a while"), times=5)
        await until(lambda: made.layer.status()["fill"] == "done")
        assert now(made.layer, 0, SIZE) == WORDS
    assert len(warnings(caplog)) == 1
    assert "goes on later" in caplog.text


async def test_it_fills_no_more_than_there_is_room_for(folder, caplog):
    image = Image(os.urandom(4 << 20))
    async with cached(folder, image, size=3 << 20, fill="background") as made:
        await until(lambda: made.layer.status()["fill"] == "stopped")
        assert made.content.present >= 1 << 20
        assert made.content.evicted == 0, "it does not chase its own tail"
    assert "give more size=" in caplog.text


async def test_it_ends_with_the_layer_in_the_midst_of_filling(folder):
    async with cached(folder, fill="background") as made:
        gate = made.faults.hold("read")
        await gate.waiting()
    async with cached(folder) as made:
        assert await made.everything() == WORDS


# The origin is away at the start


async def test_what_is_cached_is_served_while_the_origin_is_away(folder, caplog):
    caplog.set_level(logging.INFO)
    async with cached(folder, beneath="http x") as made:
        await made.layer.read(0, 10 * CHUNK)
        info = made.layer.info
    away = Away()
    async with cached(folder, away.device, beneath="http x") as made:
        assert made.layer.info == info
        assert made.layer.identity == "image"
        assert await made.layer.read(0, 10 * CHUNK) == WORDS[: 10 * CHUNK]
        assert made.layer.status()["origin"] == "away"
        with pytest.raises(SourceUnavailableError, match="is away"):
            await made.layer.read(10 * CHUNK, 1)
        away.image = Image()
        assert await made.everything() == WORDS
        assert made.layer.status()["origin"] == "here"
    assert "present=40960 size=162840 writable=True origin=away" in caplog.text


async def test_an_origin_that_comes_back_as_something_else_is_not_mixed_in(folder):
    async with cached(folder, beneath="http x") as made:
        await made.layer.read(0, 10 * CHUNK)
    away = Away()
    async with cached(folder, away.device, beneath="http x") as made:
        away.image = Image(WORDS[::-1], identity="newer")
        for _ in range(2):
            with pytest.raises(
                DeviceError, match="the image has changed while its origin was away"
            ):
                await made.layer.read(10 * CHUNK, 1)
        with pytest.raises(DeviceError, match="changed"):
            await made.layer.extents(10 * CHUNK, CHUNK)
        assert await made.layer.read(0, 10 * CHUNK) == WORDS[: 10 * CHUNK]
    async with cached(folder, away.device, beneath="http x") as made:
        assert await made.everything() == WORDS[::-1], "opened anew it is the new one"


async def test_an_origin_never_seen_before_must_be_there(folder):
    async with cached(folder, beneath="http x"):
        pass
    with pytest.raises(SourceUnavailableError, match="is away"):
        async with cached(folder, Away().device, beneath="http y"):
            pass


async def test_a_damaged_note_of_the_origin_is_not_believed(folder, caplog):
    async with cached(folder, beneath="http x"):
        pass
    note = only(folder, ".origin")
    note.write_bytes(note.read_bytes().replace(b'"size": 1', b'"size": 2'))
    with pytest.raises(SourceUnavailableError):
        async with cached(folder, Away().device, beneath="http x"):
            pass
    assert "of no use" in caplog.text


async def test_the_note_does_not_tell_how_the_chain_was_written(folder):
    async with cached(folder, beneath="http x user=me password=secret"):
        pass
    assert all(b"secret" not in path.read_bytes() for path in folder.iterdir())


async def test_a_silent_web_server_does_not_hold_up_what_is_cached(folder):
    async with webserver(WORDS) as web:
        cache = parse_layer(f"cache:path={folder},size=1G,block={CHUNK}")
        spec = ExportSpec(parse_source(["http", web.url()]), (cache,))
        for patience in (60, 0):
            chain = await ChainPool(patience=patience).open(spec)
            assert await chain.outermost.read(0, 2 * CHUNK) == WORDS[: 2 * CHUNK]
            assert len(web.asked) == 2, "it is not asked again for what is cached"
            await chain.close()
            web.always = silent


async def test_a_cache_that_has_seen_its_origin_is_ready_alone(folder):
    params = CacheParams(size=1, path=folder)
    async with cached(folder, beneath="http x"):
        pass
    for beneath, ready in (("http x", True), ("http y", False)):
        layer = CacheLayer(Image(), params)
        layer.beneath = beneath
        assert await layer.is_ready_alone() is ready
    assert not await CacheLayer(Image(), CacheParams(size=1)).is_ready_alone()


def test_only_a_cache_on_disk_survives_what_lies_beneath(folder):
    assert CacheLayer(Image(), CacheParams(size=1, path=folder)).survives_inner
    assert not CacheLayer(Image(), CacheParams(size=1)).survives_inner
