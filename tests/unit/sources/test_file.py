"""The file source on real files, a tmpfs of its own where it takes one."""

import errno
import os
import struct
import subprocess

import pytest

from nbdserve.errors import DeviceError
from nbdserve.extents import DATA, ZERO_HOLE, Extent
from nbdserve.sources.file import FileParams, FileSource

SIZE = 1 << 20
PATTERN = b"".join(struct.pack(">Q", at) for at in range(0, SIZE, 8))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(PATTERN)
    return path


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


@pytest.mark.parametrize("read_only", [True, False])
async def test_it_reads_what_the_file_holds(opened, path, read_only):
    disk = await opened(path, read_only=read_only)
    assert disk.info.size == SIZE
    for offset, length in [(0, 1), (0, SIZE), (4095, 2), (SIZE - 1, 1)]:
        assert await disk.read(offset, length) == PATTERN[offset : offset + length]


async def test_hot_data_is_read_without_waiting(opened, path):
    disk = await opened(path)
    view = memoryview(bytearray(4096))
    assert disk.read_into_nowait(8192, view)
    assert view == PATTERN[8192:12288]


async def test_a_read_past_the_end_of_a_file_that_shrank_is_an_error(opened, path):
    disk = await opened(path)
    os.truncate(path, 5000)
    view = memoryview(bytearray(4096))
    assert not disk.read_into_nowait(4096, view)
    with pytest.raises(DeviceError, match="shrank while open") as caught:
        await disk.read_into(4096, view)
    assert caught.value.errno == errno.EIO


@pytest.mark.parametrize("fua", [True, False])
async def test_a_write_reaches_the_file(opened, path, fua):
    disk = await opened(path)
    await disk.write(100, memoryview(b"written"), fua=fua)
    await disk.flush()
    assert path.read_bytes()[98:109] == PATTERN[98:100] + b"written" + PATTERN[107:109]


@pytest.mark.parametrize("may_trim", [True, False])
@pytest.mark.parametrize("fast", [True, False])
async def test_zeroes_are_made_by_the_file_system(opened, path, may_trim, fast):
    disk = await opened(path)
    await disk.write_zeroes(65537, 200_000, fua=True, may_trim=may_trim, fast=fast)
    assert (
        await disk.read(65536, 200_002)
        == PATTERN[65536:65537] + bytes(200_000) + PATTERN[265537:265538]
    )
    allocated = path.stat().st_blocks * 512
    assert (allocated < SIZE) is may_trim, "only may_trim makes a hole"


async def test_trim_makes_a_hole(opened, path):
    disk = await opened(path)
    await disk.trim(0, 524288, fua=False)
    assert await disk.extents(0, SIZE) == [Extent(524288, ZERO_HOLE), Extent(524288, DATA)]


async def test_extents_tell_holes_wherever_they_lie(opened, tmp_path):
    path = tmp_path / "sparse.img"
    with path.open("wb") as out:
        out.truncate(1 << 20)
        for at in (131072, 524288):
            out.seek(at)
            out.write(b"x" * 65536)
    disk = await opened(path)
    assert await disk.extents(0, 1 << 20) == [
        Extent(131072, ZERO_HOLE),
        Extent(65536, DATA),
        Extent(327680, ZERO_HOLE),
        Extent(65536, DATA),
        Extent(458752, ZERO_HOLE),
    ]
    assert await disk.extents(140_000, 10) == [Extent(10, DATA)]
    assert await disk.extents((1 << 20) - 1, 1) == [Extent(1, ZERO_HOLE)]


async def test_where_the_file_system_cannot_zero_fast_is_refused_and_contents_stay(opened, path):
    disk = await opened(path)
    disk._punches = disk._zeroes = False  # as learnt from EOPNOTSUPP
    with pytest.raises(DeviceError) as caught:
        await disk.write_zeroes(0, 4096, fua=False, may_trim=True, fast=True)
    assert caught.value.errno == errno.EOPNOTSUPP
    assert await disk.read(0, 4096) == PATTERN[:4096]
    await disk.write_zeroes(0, 4096, fua=False, may_trim=True, fast=False)
    assert await disk.read(0, 4096) == bytes(4096)


async def test_cache_asks_the_kernel_to_read_ahead(opened, path):
    disk = await opened(path)
    await disk.cache(0, SIZE)
    assert disk.read_into_nowait(0, memoryview(bytearray(4096)))


@pytest.mark.parametrize("size", [0, 1, 511, 513])
async def test_odd_sizes_are_served_to_their_last_byte(opened, tmp_path, size):
    path = tmp_path / "odd.img"
    path.write_bytes(PATTERN[:size])
    disk = await opened(path)
    assert disk.info.size == size
    assert await disk.read(0, size) == PATTERN[:size]


async def test_a_missing_file_is_one_line_with_a_remedy(opened, tmp_path):
    with pytest.raises(DeviceError, match=r"none\.img: No such file.*check the path"):
        await opened(tmp_path / "none.img")


async def test_a_folder_is_one_line_with_a_remedy(opened, tmp_path):
    for read_only in (True, False):
        with pytest.raises(DeviceError, match=r"folder|name an image"):
            await opened(tmp_path, read_only=read_only)


async def test_a_fifo_is_refused_at_once(opened, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(DeviceError, match="neither a file nor a block device"):
        await opened(tmp_path / "fifo")


async def test_a_second_writer_is_refused(opened, path):
    await opened(path)
    with pytest.raises(DeviceError, match="another process writes to it"):
        await opened(path)
    await opened(path, read_only=True)
    await opened(path, lock=False)


async def test_a_file_that_may_not_be_written_is_served_read_only(opened, path, caplog):
    subprocess.run(["chattr", "+i", path], check=True)
    try:
        disk = await opened(path)
    finally:
        subprocess.run(["chattr", "-i", path], check=True)
    assert not disk.info.can & disk.info.can.WRITE
    assert "read-only" in caplog.text


async def test_a_failed_flush_is_not_forgotten(opened, path):
    disk = await opened(path)
    good, disk._fd = disk._fd, 1 << 20  # no such descriptor: fdatasync fails
    with pytest.raises(DeviceError, match="writes were lost"):
        await disk.flush()
    disk._fd = good
    with pytest.raises(DeviceError, match="writes were lost"):
        await disk.write(0, memoryview(b"x"), fua=True)


@pytest.fixture
def tiny(tmp_path):
    """A file system of 1 MiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


async def test_a_full_disk_is_enospc_and_the_file_is_still_served(opened, tiny):
    path = tiny / "disk.img"
    with path.open("wb") as out:
        out.truncate(4 << 20)
    disk = await opened(path)
    with pytest.raises(OSError, match="No space") as caught:
        await disk.write(0, memoryview(bytes([1]) * (2 << 20)), fua=False)
    assert caught.value.errno == errno.ENOSPC
    assert await disk.read(3 << 20, 4096) == bytes(4096)
