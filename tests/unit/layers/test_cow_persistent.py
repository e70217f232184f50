import asyncio
import errno
import logging
import os
import shutil
import threading

import pytest

from cow_chain import CLUSTER, SIZE, contents, faulty, file_size_limit, opened, pattern, write, zero
from nbdserve.device import Capability
from nbdserve.errors import CorruptDataError, DeviceError, NoSpaceError
from nbdserve.formats.overlay import BLOCK, layout_of
from nbdserve.layers.cow import CowLayer, CowParams
from nbdserve.sources.data import DataParams, DataSource
from nbdserve.sources.pattern import PatternParams, PatternSource

LAYOUT = layout_of(SIZE, CLUSTER)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "vm.cow"


async def fill(layer):
    """Write to the overlay what `filled` reads from it."""
    await write(layer, 100, b"partial")
    await write(layer, 2 * CLUSTER, b"w" * CLUSTER)
    await zero(layer, 3 * CLUSTER, 2 * CLUSTER)


async def filled():
    expected = await contents(pattern())
    expected[100:107] = b"partial"
    expected[2 * CLUSTER : 5 * CLUSTER] = b"w" * CLUSTER + bytes(2 * CLUSTER)
    return expected


async def refusal(path, base=None, error=DeviceError, **params):
    """Open the overlay, which must fail and leave the file as it is, and return the text."""
    before = path.read_bytes()
    layer = CowLayer(base or pattern(), CowParams(**{"path": path, "cluster": CLUSTER, **params}))
    with pytest.raises(error) as caught:
        await layer.open(read_only=False)
    assert path.read_bytes() == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Surviving


async def test_what_was_written_is_there_after_a_restart(path):
    async with opened(pattern(), path=path) as layer:
        await fill(layer)
    async with opened(pattern(), path=path) as layer:
        assert await contents(layer) == await filled()
        await write(layer, 0, b"more")
    async with opened(pattern(), path=path) as layer:
        expected = await filled()
        expected[:4] = b"more"
        assert await contents(layer) == expected


async def test_what_was_flushed_is_there_without_a_close(path, tmp_path):
    async with opened(pattern(), path=path) as layer:
        await fill(layer)
        await layer.flush()
        shutil.copy(path, tmp_path / "crashed.cow")
    async with opened(pattern(), path=tmp_path / "crashed.cow") as layer:
        assert await contents(layer) == await filled()


@pytest.mark.parametrize("operation", ["write", "zero", "trim"])
async def test_what_was_done_with_fua_is_there_without_a_flush(path, tmp_path, operation):
    async with opened(pattern(), path=path) as layer:
        if operation == "write":
            await layer.write(CLUSTER, memoryview(bytes(CLUSTER)), fua=True)
        elif operation == "zero":
            await layer.write_zeroes(CLUSTER, CLUSTER, fua=True, may_trim=True, fast=False)
        else:
            await layer.trim(CLUSTER, CLUSTER, fua=True)
        shutil.copy(path, tmp_path / "crashed.cow")
    async with opened(pattern(), path=tmp_path / "crashed.cow") as layer:
        assert await layer.read(CLUSTER, CLUSTER) == bytes(CLUSTER)


async def test_the_cluster_size_of_an_overlay_is_kept_unless_another_is_asked_for(path):
    async with opened(pattern(), path=path) as layer:
        await fill(layer)
    async with opened(pattern(), path=path, cluster=None) as layer:
        assert await contents(layer) == await filled()
    text = await refusal(path, cluster=2 * CLUSTER)
    assert text == (
        f"cow: {path}: has clusters of 4096 bytes, not 8192; "
        "name another path=, or remove the file to start afresh"
    )


async def test_making_an_overlay_leaves_no_other_file_behind(path):
    async with opened(pattern(), path=path):
        assert list(path.parent.iterdir()) == [path]


async def test_an_overlay_that_cannot_be_made_leaves_no_file_behind(path):
    with file_size_limit(BLOCK), pytest.raises(DeviceError, match="cannot be made: File too large"):
        async with opened(pattern(), path=path):
            pass
    assert list(path.parent.iterdir()) == []


async def test_a_folder_that_is_missing_is_a_clear_error(tmp_path):
    with pytest.raises(DeviceError, match=r"cannot be made: No such .*; make the folder first"):
        async with opened(pattern(), path=tmp_path / "missing" / "vm.cow"):
            pass


async def test_a_cancelled_open_lets_go_of_the_file(path):
    async with opened(pattern(), path=path) as layer:
        await fill(layer)
    inner = faulty()
    gate = inner.hold("read")
    layer = CowLayer(inner, CowParams(path=path))
    opening = asyncio.ensure_future(layer.open(read_only=False))
    await gate.waiting(1)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    async with opened(pattern(), path=path) as layer:
        assert await contents(layer) == await filled()


# Read-only


async def test_opened_read_only_it_shows_what_was_written_and_writes_nothing(path):
    async with opened(pattern(), path=path) as layer:
        await fill(layer)
    before = path.read_bytes()
    async with opened(pattern(), path=path, read_only=True) as layer:
        assert not layer.info.can & Capability.WRITES
        assert await contents(layer) == await filled()
    assert path.read_bytes() == before


async def test_opened_read_only_a_missing_overlay_is_not_made(path):
    async with opened(pattern(), path=path, read_only=True) as layer:
        assert await contents(layer) == await contents(pattern())
    assert not path.exists()


# Refusing


async def test_a_base_of_another_size_is_refused(path):
    async with opened(pattern(), path=path):
        pass
    assert await refusal(path, pattern(SIZE * 2)) == (
        f"cow: {path}: was made over a base of 65536 bytes, this one has 131072; "
        "name another path=, or remove the file to start afresh"
    )


@pytest.mark.parametrize("changed", [0, SIZE - 1])
async def test_a_base_with_other_contents_is_refused(path, changed):
    image = await contents(pattern())
    async with opened(pattern(), path=path):
        pass
    image[changed] ^= 1
    text = await refusal(path, DataSource(DataParams(hex=bytes(image))))
    assert "was made over a base with other contents (fingerprint " in text


class Tagged(PatternSource):
    def __init__(self, identity):
        super().__init__(PatternParams(size=SIZE))
        self._identity = identity

    @property
    def identity(self):
        return self._identity


async def test_a_base_that_calls_itself_something_else_is_refused(path):
    async with opened(Tagged('etag "a"'), path=path):
        pass
    text = await refusal(path, Tagged('etag "b"'))
    assert """was made over 'etag "a"', this base is 'etag "b"'; name another""" in text


async def test_a_base_with_the_same_name_or_none_is_taken(path):
    async with opened(Tagged("a"), path=path) as layer:
        await fill(layer)
    for base in (Tagged("a"), pattern()):
        async with opened(base, path=path) as layer:
            assert await contents(layer) == await filled()


async def test_an_overlay_in_use_is_refused(path):
    async with opened(pattern(), path=path):
        text = await refusal(path)
        assert text == (
            f"cow: {path}: is in use by another export or process; "
            "end that one, or give each its own path="
        )
        with pytest.raises(DeviceError, match="is in use"):
            async with opened(pattern(), path=path, read_only=True):
                pass
    async with opened(pattern(), path=path):
        pass


async def test_readers_share_an_overlay_and_keep_writers_out(path):
    async with opened(pattern(), path=path):
        pass
    async with opened(pattern(), path=path, read_only=True):
        async with opened(pattern(), path=path, read_only=True):
            pass
        assert "is in use" in await refusal(path)


async def test_a_file_that_is_no_overlay_is_refused(path):
    path.write_bytes(b"precious".ljust(1 << 16))
    text = await refusal(path, error=CorruptDataError)
    assert text == (
        f"cow: {path}: is not an overlay of nbdserve; "
        "restore it from a backup, or remove it to start afresh"
    )


async def test_a_folder_in_its_place_is_refused(tmp_path):
    with pytest.raises(DeviceError, match="Is a directory"):
        async with opened(pattern(), path=tmp_path):
            pass


@pytest.fixture
async def sealed(path):
    """An overlay that was closed properly."""
    async with opened(pattern(), path=path) as layer:
        await fill(layer)
    return path


def damage(path, at, length=1):
    with path.open("r+b") as file:
        file.seek(at)
        old = file.read(length)
        file.seek(at)
        file.write(bytes(byte ^ 0xFF for byte in old))


async def test_a_damaged_header_is_refused(sealed):
    damage(sealed, 20)
    assert "its header is damaged" in await refusal(sealed, error=CorruptDataError)


async def test_a_damaged_page_of_the_map_is_refused(sealed):
    damage(sealed, LAYOUT.page_at(0, 0), 2 * BLOCK)
    text = await refusal(sealed, error=CorruptDataError)
    assert "a page of its map is damaged (page 0); restore it" in text


async def test_damage_to_both_roots_is_refused(sealed):
    damage(sealed, LAYOUT.root_at(0) + 20)
    damage(sealed, LAYOUT.root_at(1) + 20)
    assert "both roots of its map are damaged" in await refusal(sealed, error=CorruptDataError)


async def test_an_overlay_cut_short_is_refused(sealed):
    os.truncate(sealed, LAYOUT.end - 1)
    text = await refusal(sealed, error=CorruptDataError)
    assert f"is shorter than the {LAYOUT.end} bytes it should have" in text


@pytest.mark.parametrize("root", [0, 1])
async def test_after_a_proper_close_either_root_is_enough(sealed, root):
    damage(sealed, LAYOUT.root_at(root) + 20)
    async with opened(pattern(), path=sealed) as layer:
        assert await contents(layer) == await filled()


@pytest.mark.parametrize("commits", [1, 2])
async def test_a_torn_write_of_the_map_falls_back_to_the_map_before(
    path, tmp_path, commits, caplog
):
    crashed = tmp_path / "crashed.cow"
    async with opened(pattern(), path=path) as layer:
        for number in range(commits):
            await write(layer, number * CLUSTER, b"old".ljust(CLUSTER))
            await layer.flush()
        await write(layer, 8 * CLUSTER, b"new".ljust(CLUSTER))
        await layer.flush()
        shutil.copy(path, crashed)
    # root 1 was written at the start; commits go to the other one each time
    damage(crashed, LAYOUT.root_at((2 + commits) % 2) + 20)
    expected = await contents(pattern())
    for number in range(commits):
        expected[number * CLUSTER : (number + 1) * CLUSTER] = b"old".ljust(CLUSTER)
    with caplog.at_level(logging.WARNING):
        async with opened(pattern(), path=crashed) as layer:
            assert await contents(layer) == expected
    assert "a write of the overlay's map was cut short" in caplog.text


# Committing


@pytest.fixture
def disk(monkeypatch):
    """Counts what is made durable, and fails or holds it when told to."""

    class Disk:
        syncs = 0
        failure = None
        begun = threading.Event()
        may_end = threading.Event()

    disk = Disk()
    disk.may_end.set()
    plain = os.fdatasync

    def fdatasync(fd):
        disk.syncs += 1
        disk.begun.set()
        disk.may_end.wait()
        if disk.failure is not None:
            raise disk.failure
        plain(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    return disk


async def test_writing_again_in_place_costs_one_sync_and_no_map(path, disk):
    async with opened(pattern(), path=path) as layer:
        await layer.write(0, memoryview(b"one"), fua=True)
        assert disk.syncs == 2  # data and page, then root
        root = path.read_bytes()[: LAYOUT.data_start]
        await layer.write(0, memoryview(b"two"), fua=True)
        assert disk.syncs == 3
        assert path.read_bytes()[: LAYOUT.data_start] == root


async def test_many_flushes_share_one_commit(path, disk):
    async with opened(pattern(), path=path) as layer:
        disk.may_end.clear()
        first = asyncio.ensure_future(layer.flush())
        await asyncio.get_running_loop().run_in_executor(None, disk.begun.wait)
        others = [asyncio.ensure_future(layer.flush()) for _ in range(50)]
        await asyncio.wait(others, timeout=0)
        disk.may_end.set()
        await asyncio.gather(first, *others)
        assert disk.syncs == 2


async def test_after_a_failed_sync_no_flush_succeeds_until_the_overlay_is_opened_anew(path, disk):
    layer = CowLayer(pattern(), CowParams(path=path, cluster=CLUSTER))
    await layer.open(read_only=False)
    await write(layer, 0, b"lost?")
    disk.failure = OSError(errno.EIO, "Input/output error")
    with pytest.raises(DeviceError, match="writes were lost"):
        await layer.flush()
    disk.failure = None
    with pytest.raises(DeviceError, match="writes were lost"):
        await layer.flush()
    with pytest.raises(DeviceError, match="writes were lost"):
        await layer.write(0, memoryview(b"x"), fua=True)
    assert await layer.read(0, 5) == b"xost?"
    with pytest.raises(DeviceError, match="writes were lost"):
        await layer.close()
    async with opened(pattern(), path=path) as layer:
        await layer.write(0, memoryview(b"again"), fua=True)
        assert await layer.read(0, 5) == b"again"


async def test_a_commit_that_finds_no_space_is_made_up_for_by_the_next(path, tmp_path):
    async with opened(pattern(), path=path) as layer:
        await fill(layer)
        with file_size_limit(BLOCK), pytest.raises(NoSpaceError):
            await layer.flush()
        await layer.flush()
        shutil.copy(path, tmp_path / "crashed.cow")
    async with opened(pattern(), path=tmp_path / "crashed.cow") as layer:
        assert await contents(layer) == await filled()
