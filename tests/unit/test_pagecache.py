"""What is cached is known without waiting for the disk."""

import os

import pytest

from nbdserve import pagecache
from nbdserve.pagecache import is_resident


@pytest.fixture
def image(tmp_path):
    fd = os.open(tmp_path / "disk.img", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, os.urandom(1 << 20), 0)
    os.fsync(fd)
    os.pread(fd, 1 << 20, 0)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("place", [(0, 1 << 20), (100, 5), (4095, 2), (65_536, 300_000)])
def test_what_was_just_written_is_resident(image, place):
    assert is_resident(image, *place)


def test_what_is_past_the_end_is_not(image):
    assert not is_resident(image, (1 << 20) - 4096, 8192)
    assert not is_resident(image, 1 << 21, 8192)


def test_what_was_dropped_is_not(image):
    # nothing is read in between: the kernel would begin to read ahead, even for RWF_NOWAIT
    os.posix_fadvise(image, 0, 0, os.POSIX_FADV_DONTNEED)
    assert not is_resident(image, 0, 1 << 20)
    assert not is_resident(image, 600_000, 1)
    os.pread(image, 1 << 20, 0)
    assert is_resident(image, 0, 1 << 20)


def test_no_file_is_not(image):
    assert not is_resident(-1, 0, 4096)


def test_where_the_kernel_cannot_tell_nothing_is(image, monkeypatch):
    monkeypatch.setattr(pagecache, "_CACHESTAT", 100_000)
    assert not is_resident(image, 0, 4096)
