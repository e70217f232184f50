"""The file source on real files: what it offers, where it waits, and how it ends."""

import asyncio
import errno
import os
import threading
from pathlib import Path

import pytest

from nbdserve.device import Capability
from nbdserve.errors import DeviceError
from nbdserve.extents import DATA, ZERO_HOLE, Extent
from nbdserve.sources.file import FileParams, FileSource

SIZE = 1 << 20


@pytest.fixture
async def opened():
    """Open sources that are closed at the end."""
    devices = []

    async def make(path, *, read_only=False, **params):
        device = FileSource(FileParams(path=path, **params))
        await device.open(read_only=read_only)
        devices.append(device)
        return device

    yield make
    for device in devices:
        await device.close()


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("read_only", [True, False])
async def test_it_reads_what_the_file_holds(opened, path, pattern, read_only):
    disk = await opened(path, read_only=read_only)
    assert disk.info.size == SIZE
    for offset, length in [(0, 1), (0, SIZE), (4095, 2), (SIZE - 1, 1)]:
        assert await disk.read(offset, length) == pattern[offset : offset + length]


async def test_it_can_write_unless_it_was_opened_read_only(opened, path):
    assert (await opened(path)).info.can & Capability.WRITES == Capability.WRITES
    disk = await opened(path, read_only=True)
    assert disk.info.can == Capability.CACHE | Capability.EXTENTS


async def test_hot_data_is_read_without_waiting(opened, path, pattern):
    disk = await opened(path)
    view = memoryview(bytearray(4096))
    assert disk.read_into_nowait(8192, view)
    assert view == pattern[8192:12288]


async def test_where_the_kernel_has_no_nowait_it_is_asked_once(opened, path, pattern, monkeypatch):
    asked = []

    def preadv(fd, buffers, offset, flags=0):
        asked.append(flags)
        if flags & os.RWF_NOWAIT:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return real(fd, buffers, offset, flags)

    real = os.preadv
    monkeypatch.setattr(os, "preadv", preadv)
    disk = await opened(path)
    for _ in range(3):
        assert await disk.read(4096, 4096) == pattern[4096:8192]
    assert [flags for flags in asked if flags] == [os.RWF_NOWAIT], "once, and no more"


async def test_data_that_is_not_hot_is_not_waited_for(opened, path, monkeypatch):
    def preadv(fd, buffers, offset, flags=0):
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    disk = await opened(path)
    monkeypatch.setattr(os, "preadv", preadv)
    assert not disk.read_into_nowait(0, memoryview(bytearray(4096)))


async def test_a_read_past_the_end_of_a_file_that_shrank_is_an_error(opened, path):
    disk = await opened(path)
    os.truncate(path, 5000)
    view = memoryview(bytearray(4096))
    assert not disk.read_into_nowait(4096, view)
    with pytest.raises(DeviceError, match=r"disk\.img: shrank while open") as caught:
        await disk.read_into(4096, view)
    assert caught.value.errno == errno.EIO


async def test_its_bytes_can_be_sent_from_the_file(opened, path, pattern):
    disk = await opened(path)
    place = disk.file_range(4096, 100)
    assert os.pread(place.fd, 100, place.offset) == pattern[4096:4196]


@pytest.mark.parametrize("fua", [True, False])
async def test_a_write_reaches_the_file(opened, path, pattern, fua):
    disk = await opened(path)
    await disk.write(100, memoryview(b"written"), fua=fua)
    await disk.flush()
    assert path.read_bytes()[98:109] == pattern[98:100] + b"written" + pattern[107:109]


async def test_fua_and_flush_sync_and_plain_writes_do_not(opened, path, monkeypatch):
    syncs = []
    real = os.fdatasync

    def fdatasync(fd):
        syncs.append(fd)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    disk = await opened(path)
    calls = {
        "write": lambda fua: disk.write(0, memoryview(b"x"), fua=fua),
        "zero": lambda fua: disk.write_zeroes(0, 9, fua=fua, may_trim=False, fast=False),
        "trim": lambda fua: disk.trim(0, 4096, fua=fua),
    }
    for call in calls.values():
        await call(False)
    assert syncs == []
    for number, call in enumerate(calls.values(), 1):
        await call(True)
        assert len(syncs) == number
    await disk.flush()
    assert len(syncs) == 4


async def test_many_writes_with_fua_share_their_syncs(opened, path, monkeypatch):
    syncs = []
    monkeypatch.setattr(os, "fdatasync", syncs.append)
    disk = await opened(path)
    data = memoryview(b"x" * 512)
    await asyncio.gather(*(disk.write(at * 512, data, fua=True) for at in range(32)))
    assert 1 <= len(syncs) < 32


async def test_a_failed_flush_is_not_forgotten(opened, path, monkeypatch):
    real = os.fdatasync
    failures = [OSError(errno.EIO, "Input/output error")]

    def fdatasync(fd):
        if failures:
            raise failures.pop()
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    disk = await opened(path)
    for _ in range(2):
        with pytest.raises(DeviceError, match=r"writes were lost.*restart the export") as caught:
            await disk.flush()
        assert caught.value.errno == errno.EIO
    with pytest.raises(DeviceError, match="writes were lost"):
        await disk.write(0, memoryview(b"x"), fua=True)
    await disk.write(0, memoryview(b"x"), fua=False)
    assert await disk.read(0, 1) == b"x", "reads and plain writes go on"

    anew = await opened(path, lock=False)
    await anew.flush()


async def test_a_failed_flush_is_remembered_though_it_was_cancelled(opened, path, monkeypatch):
    begun, fail = threading.Event(), threading.Event()

    def fdatasync(fd):
        begun.set()
        fail.wait()
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    disk = await opened(path)
    flush = asyncio.ensure_future(disk.flush())
    await asyncio.to_thread(begun.wait)
    flush.cancel()
    fail.set()
    monkeypatch.setattr(os, "fdatasync", lambda fd: None)
    with pytest.raises(DeviceError, match="writes were lost"):
        await disk.flush()


async def test_trim_makes_a_hole_that_extents_tell(opened, path):
    disk = await opened(path)
    await disk.trim(0, 524288, fua=False)
    assert await disk.extents(0, SIZE) == [Extent(524288, ZERO_HOLE), Extent(524288, DATA)]


async def test_trim_is_not_offered_where_holes_cannot_be_punched(opened, path, monkeypatch):
    def fallocate(fd, mode, offset, length):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr("nbdserve.sources.imagefile.fallocate", fallocate)
    disk = await opened(path)
    assert not disk.info.can & Capability.TRIM
    assert disk.info.can & Capability.WRITE_ZEROES


async def test_looking_for_holes_changes_nothing(opened, path, pattern):
    before = path.stat()
    await opened(path)
    after = path.stat()
    assert (before.st_size, before.st_blocks) == (after.st_size, after.st_blocks)
    assert path.read_bytes() == pattern


async def test_cache_asks_the_kernel_to_read_ahead(opened, path):
    disk = await opened(path)
    await disk.cache(0, SIZE)
    assert disk.read_into_nowait(0, memoryview(bytearray(4096)))


@pytest.mark.parametrize("size", [0, 1, 511, 513])
async def test_odd_sizes_are_served_to_their_last_byte(opened, tmp_path, pattern, size):
    path = tmp_path / "odd.img"
    path.write_bytes(pattern[:size])
    disk = await opened(path)
    assert disk.info.size == size
    assert await disk.read(0, size) == pattern[:size]


async def test_a_cancelled_write_is_waited_for(opened, path, monkeypatch):
    """Else it could land on top of a later one, or in the next file under the same number."""
    disk = await opened(path)
    begun, go_on = threading.Event(), threading.Event()
    real = os.pwrite

    def pwrite(fd, data, offset):
        begun.set()
        go_on.wait()
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    write = asyncio.ensure_future(disk.write(0, memoryview(b"late"), fua=False))
    await asyncio.to_thread(begun.wait)
    write.cancel()
    await asyncio.sleep(0)
    assert not write.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await write
    assert path.read_bytes()[:4] == b"late"


async def test_what_cannot_be_opened_leaves_nothing_open(opened, path):
    await opened(path)
    before = open_descriptors()
    with pytest.raises(DeviceError, match="another process"):
        await opened(path)
    assert open_descriptors() == before


async def test_an_opening_that_is_cancelled_leaves_nothing_open(path):
    warm_up = FileSource(FileParams(path=path))  # what is opened once for all, is
    await warm_up.open(read_only=False)
    await warm_up.close()
    before = open_descriptors()
    for turns in range(3):
        opening = asyncio.ensure_future(FileSource(FileParams(path=path)).open(read_only=False))
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        assert opening.cancelled()
        assert open_descriptors() == before


async def test_opening_a_file_for_writing_leaves_its_date(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(4096))
    os.utime(path, (1_000_000_000, 1_000_000_000))
    source = FileSource(FileParams(path=path))
    await source.open(read_only=False)
    await source.close()
    assert path.stat().st_mtime == 1_000_000_000
