"""An image by blocking calls: zeroes, holes and failures, on this and on lesser file systems."""

import errno
import os
import tempfile

import pytest

from nbdserve.errors import DeviceError, NoSpaceError, NotSupportedError
from nbdserve.extents import DATA, ZERO_HOLE, Extent
from nbdserve.sources.imagefile import ImageFile, aligned_middle
from nbdserve.sources.kernel import FallocateMode, fallocate

SIZE = 1 << 20
PUNCH = FallocateMode.PUNCH_HOLE | FallocateMode.KEEP_SIZE
ZERO = FallocateMode.ZERO_RANGE | FallocateMode.KEEP_SIZE
ALLOCATE = FallocateMode.KEEP_SIZE


@pytest.fixture
def opened():
    """Open files as images that are closed at the end."""
    images = []

    def make(path, *, sector=1):
        image = ImageFile(path, os.open(path, os.O_RDWR), path.stat().st_size, sector=sector)
        images.append(image)
        return image

    yield make
    for image in images:
        image.close()


@pytest.fixture
def lacking(monkeypatch):
    """Take modes of fallocate away from the file system; returns the calls it gets."""

    def lack(*modes, error=errno.EOPNOTSUPP):
        calls = []

        def lesser(fd, mode, offset, length):
            calls.append((mode, offset, length))
            if mode in modes:
                raise OSError(error, os.strerror(error))
            fallocate(fd, mode, offset, length)

        monkeypatch.setattr("nbdserve.sources.imagefile.fallocate", lesser)
        return calls

    return lack


def read(image, offset, length):
    buffer = bytearray(length)
    image.read(offset, memoryview(buffer))
    return bytes(buffer)


def zeroed(pattern, offset, length):
    return pattern[:offset] + bytes(length) + pattern[offset + length :]


RANGE = (65537, 200_000)


@pytest.mark.parametrize("may_trim", [True, False])
@pytest.mark.parametrize("fast", [True, False])
def test_zeroes_are_made_by_the_file_system(opened, path, pattern, may_trim, fast):
    opened(path).write_zeroes(*RANGE, may_trim=may_trim, fast=fast)
    assert path.read_bytes() == zeroed(pattern, *RANGE)
    allocated = path.stat().st_blocks * 512
    assert (allocated < SIZE) is may_trim, "only may_trim makes a hole"


@pytest.mark.parametrize("may_trim", [True, False])
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    "modes", [(PUNCH,), (ZERO,), (ALLOCATE,), (PUNCH, ALLOCATE), (ZERO, ALLOCATE)]
)
def test_what_one_call_cannot_another_does(opened, path, pattern, lacking, modes, may_trim, fast):
    lacking(*modes)
    image = opened(path)
    try:
        image.write_zeroes(*RANGE, may_trim=may_trim, fast=fast)
    except NotSupportedError:
        assert fast
        assert modes == (ZERO, ALLOCATE)
        assert not may_trim
        return
    assert path.read_bytes() == zeroed(pattern, *RANGE)
    if not may_trim:
        assert path.stat().st_blocks * 512 >= SIZE, "it stays allocated"


@pytest.mark.parametrize("may_trim", [True, False])
def test_without_any_of_them_zeroes_are_written(opened, path, pattern, lacking, may_trim):
    lacking(PUNCH, ZERO, ALLOCATE)
    opened(path).write_zeroes(*RANGE, may_trim=may_trim, fast=False)
    assert path.read_bytes() == zeroed(pattern, *RANGE)


@pytest.mark.parametrize("may_trim", [True, False])
def test_without_any_of_them_fast_zeroes_are_refused_untouched(
    opened, path, pattern, lacking, may_trim
):
    lacking(PUNCH, ZERO, ALLOCATE)
    with pytest.raises(NotSupportedError, match="cannot zero faster"):
        opened(path).write_zeroes(*RANGE, may_trim=may_trim, fast=True)
    assert path.read_bytes() == pattern


def test_what_cannot_be_done_is_tried_once(opened, path, lacking):
    calls = lacking(PUNCH, ZERO, ALLOCATE)
    image = opened(path)
    for _ in range(3):
        image.write_zeroes(0, 4096, may_trim=True, fast=False)
        image.write_zeroes(0, 4096, may_trim=False, fast=False)
        image.trim(0, 4096)
    assert [mode for mode, _, _ in calls] == [PUNCH, ZERO]


def test_an_einval_is_about_that_range_alone(opened, path, lacking):
    calls = lacking(PUNCH, error=errno.EINVAL)
    image = opened(path)
    image.trim(0, 4096)
    image.trim(4096, 4096)
    assert len(calls) == 2


@pytest.mark.parametrize("may_trim", [True, False])
@pytest.mark.parametrize("fast", [True, False])
def test_a_tmpfs_that_cannot_zero_ranges_zeroes_them_all_the_same(opened, pattern, may_trim, fast):
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as made:
        made.write(pattern)
        made.flush()
        image = ImageFile(made.name, os.dup(made.fileno()), SIZE)
        image.write_zeroes(*RANGE, may_trim=may_trim, fast=fast)
        assert read(image, 0, SIZE) == zeroed(pattern, *RANGE)
        image.close()


@pytest.mark.parametrize(("offset", "length"), [(1, 5000), (512, 1024), (100, 50), (511, 2)])
@pytest.mark.parametrize("may_trim", [True, False])
def test_on_a_block_device_whole_sectors_are_zeroed_and_the_rest_written(
    opened, path, pattern, lacking, offset, length, may_trim
):
    calls = lacking()
    opened(path, sector=512).write_zeroes(offset, length, may_trim=may_trim, fast=False)
    assert path.read_bytes() == zeroed(pattern, offset, length)
    assert all(at % 512 == size % 512 == 0 and size for _, at, size in calls)


def test_on_a_block_device_only_an_unmap_counts_as_fast(opened, path, pattern, lacking):
    lacking(PUNCH)
    image = opened(path, sector=512)
    for may_trim in (True, False):
        with pytest.raises(NotSupportedError):
            image.write_zeroes(0, 4096, may_trim=may_trim, fast=True)
    assert path.read_bytes() == pattern


@pytest.mark.parametrize(
    ("offset", "length", "unit", "wanted"),
    [
        (0, 10, 1, (0, 10)),
        (5, 0, 1, (5, 0)),
        (0, 1024, 512, (0, 1024)),
        (1, 1023, 512, (512, 512)),
        (1, 1000, 512, (1, 0)),
        (511, 514, 512, (512, 512)),
        (100, 10, 512, (100, 0)),
    ],
)
def test_the_aligned_middle_is_whole_units_or_empty(offset, length, unit, wanted):
    assert aligned_middle(offset, length, unit) == wanted


def test_trim_on_a_block_device_spares_partial_sectors(opened, path, pattern):
    opened(path, sector=4096).trim(1, 8192)
    assert path.read_bytes() == zeroed(pattern, 4096, 4096)


def test_holes_are_told_wherever_they_lie(opened, tmp_path):
    path = tmp_path / "sparse.img"
    with path.open("wb") as out:
        out.truncate(1 << 20)
        for at in (131072, 524288):
            out.seek(at)
            out.write(b"x" * 65536)
    image = opened(path)
    assert image.extents(0, 1 << 20) == [
        Extent(131072, ZERO_HOLE),
        Extent(65536, DATA),
        Extent(327680, ZERO_HOLE),
        Extent(65536, DATA),
        Extent(458752, ZERO_HOLE),
    ]
    assert image.extents(140_000, 10) == [Extent(10, DATA)]
    assert image.extents((1 << 20) - 1, 1) == [Extent(1, ZERO_HOLE)]


def test_a_file_without_data_is_one_hole(opened, tmp_path):
    path = tmp_path / "hole.img"
    path.touch()
    os.truncate(path, 1 << 30)
    assert opened(path).extents(1000, 1 << 20) == [Extent(1 << 20, ZERO_HOLE)]


def test_a_cut_off_end_is_no_hole(opened, path):
    """A client takes a hole for zeroes, and these bytes are gone."""
    image = opened(path)
    os.truncate(path, 5000)
    with pytest.raises(DeviceError, match="shrank while open"):
        image.extents(0, SIZE)
    assert image.extents(0, 4096) == [Extent(4096, DATA)]


def test_where_holes_cannot_be_found_all_is_data(opened, path, monkeypatch):
    def lseek(fd, position, whence):
        asked.append(position)
        raise OSError(errno.EINVAL, "Invalid argument")

    asked = []
    monkeypatch.setattr(os, "lseek", lseek)
    image = opened(path)
    for _ in range(2):
        assert image.extents(4096, 8192) == [Extent(8192, DATA)]
    assert len(asked) == 1, "found out once"


def test_a_file_full_of_holes_is_told_in_parts(opened, tmp_path):
    path = tmp_path / "comb.img"
    with path.open("wb") as out:
        for number in range(700):
            out.seek(number * 8192)
            out.write(b"x" * 4096)
    found = opened(path).extents(0, 700 * 8192)
    assert len(found) == 1024
    assert found[:2] == [Extent(4096, DATA), Extent(4096, ZERO_HOLE)]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_enospc_and_the_file_goes_on(opened, path, pattern, monkeypatch, code):
    def pwrite(fd, data, offset):
        raise OSError(code, os.strerror(code))

    image = opened(path)
    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(NoSpaceError, match=r"disk\.img: cannot be written at 7: .*room") as caught:
        image.write(7, memoryview(b"x"))
    assert caught.value.errno == errno.ENOSPC
    assert read(image, 0, 4096) == pattern[:4096]


def test_a_write_in_small_steps_is_completed(opened, path, monkeypatch):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:3], offset))
    opened(path).write(10, memoryview(b"step by step"))
    assert path.read_bytes()[10:22] == b"step by step"


def test_a_read_in_small_steps_is_completed(opened, path, pattern, monkeypatch):
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, views, at: real(fd, [views[0][:5]], at))
    assert read(opened(path), 100, 99) == pattern[100:199]


def test_an_error_of_the_disk_names_the_file_and_the_place(opened, path, monkeypatch):
    def preadv(fd, views, offset):
        raise OSError(errno.EIO, "Input/output error")

    image = opened(path)
    monkeypatch.setattr(os, "preadv", preadv)
    with pytest.raises(DeviceError, match=r"disk\.img: cannot be read at 512: Input/output"):
        read(image, 512, 512)
