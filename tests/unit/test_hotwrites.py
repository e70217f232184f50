"""Hot writes: made at once where that takes no waiting, declined otherwise."""

import errno
import os
from itertools import count, repeat
from pathlib import Path

import pytest

from nbdserve import hotwrites
from nbdserve.hotwrites import DirtyGauge, HotWrites
from nbdserve.pagecache import is_held

FREE = "nr_dirty 10\nnr_writeback 5\nnr_dirty_threshold 2000\nnr_dirty_background_threshold 1000\n"


class Gauge:
    def __init__(self, low):
        self.low = low

    def is_low(self):
        return self.low


@pytest.fixture
def fd(tmp_path):
    opened = os.open(tmp_path / "disk.img", os.O_RDWR | os.O_CREAT)
    os.pwrite(opened, bytes(1 << 20), 0)
    yield opened
    os.close(opened)


@pytest.fixture
def hot(fd, monkeypatch):
    """Writes of a trusted file system whose kernel does not know RWF_NOWAIT for them."""
    made = HotWrites(fd)
    monkeypatch.setattr(made, "_nowait", False)
    monkeypatch.setattr(made, "_trusted", True)
    monkeypatch.setattr(made, "_gauge", Gauge(low=True))
    return made


@pytest.mark.parametrize(
    ("position", "length"),
    [(0, 1), (4095, 2), (8192, 4096), (100, 16_384), (4097, 200_000), (0, 1 << 20)],
)
def test_what_is_cached_is_written(hot, fd, position, length):
    data = os.urandom(length)
    assert hot.write(position, memoryview(data))
    assert os.pread(fd, length, position) == data


def test_what_is_cold_is_not(hot, fd):
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    assert not hot.write(4096, memoryview(b"x" * 4096))
    os.pread(fd, 1, 0)  # and what is read ahead with it
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    assert not hot.write(4000, memoryview(b"x" * 200))


def test_past_the_end_is_not(hot):
    assert not hot.write(1 << 20, memoryview(b"x"))
    assert not hot.write((1 << 20) - 4096, memoryview(bytes(8192)))


def test_large_ones_are_not(hot):
    assert not hot.write(0, memoryview(bytes((1 << 20) + 1)))


def test_one_cold_page_among_many_is_not(hot, fd):
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # nothing is read ahead
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    for page in range(16):
        if page != 12:
            os.pread(fd, 1, page * 4096)
    assert is_held(fd, 0, 12 * 4096)
    assert not is_held(fd, 0, 16 * 4096)
    assert not hot.write(0, memoryview(b"x" * (16 * 4096)))
    assert hot.write(0, memoryview(b"x" * (12 * 4096)))


def test_nothing_is_written_while_much_is_dirty(hot, monkeypatch):
    monkeypatch.setattr(hot, "_gauge", Gauge(low=False))
    assert not hot.write(0, memoryview(b"x"))


def test_nothing_is_written_to_a_file_system_that_is_not_trusted(hot, monkeypatch):
    monkeypatch.setattr(hot, "_trusted", False)
    assert not hot.write(0, memoryview(b"x"))


@pytest.mark.parametrize("asleep", [True, False])
def test_slow_writes_that_sleep_stop_them_for_a_while(hot, monkeypatch, asleep):
    """A busy scheduler makes a write slow too, and is no reason."""
    times = iter([100.0, 100.1, 100.2, 100.3, 100.4, 101.2, 101.4, 101.4])
    monkeypatch.setattr(hotwrites.time, "monotonic", lambda: next(times))
    sleeps = count() if asleep else repeat(7)
    monkeypatch.setattr(hotwrites, "_sleeps", lambda: next(sleeps))
    write = lambda: hot.write(0, memoryview(b"x"))  # noqa: E731
    assert write()  # slow: suspected
    assert write()  # slow again
    if asleep:
        assert not write()
        assert not write()
        assert write()
    else:
        assert write()


def test_an_error_is_left_to_the_thread(tmp_path):
    (tmp_path / "disk.img").write_bytes(bytes(4096))
    fd = os.open(tmp_path / "disk.img", os.O_RDONLY)
    try:
        assert not HotWrites(fd).write(0, memoryview(b"x"))
    finally:
        os.close(fd)


@pytest.mark.parametrize("error", [errno.EAGAIN, errno.ENOSPC])
def test_where_the_kernel_knows_it_decides(hot, monkeypatch, error):
    monkeypatch.setattr(hot, "_nowait", True)

    def refuse(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "pwritev", refuse)
    assert not hot.write(0, memoryview(b"x"))
    assert hot._nowait


@pytest.mark.parametrize(
    ("told", "low"),
    [
        (FREE, True),
        (FREE.replace("nr_dirty 10", "nr_dirty 1240"), True),
        (FREE.replace("nr_dirty 10", "nr_dirty 1250"), False),
        (FREE.replace("nr_writeback 5", "nr_writeback 1240"), False),
        ("nr_dirty 10\n", False),
        ("nonsense", False),
    ],
)
def test_the_gauge_is_low_far_below_where_writers_wait(tmp_path, monkeypatch, told, low):
    monkeypatch.setattr(hotwrites, "_has_memory_limit", lambda: False)
    (tmp_path / "vmstat").write_text(told)
    assert DirtyGauge(tmp_path / "vmstat").is_low() is low


def test_the_gauge_is_not_low_where_nothing_is_told_or_memory_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(hotwrites, "_has_memory_limit", lambda: False)
    assert not DirtyGauge(tmp_path / "vmstat").is_low()
    (tmp_path / "vmstat").write_text(FREE)
    monkeypatch.setattr(hotwrites, "_has_memory_limit", lambda: True)
    assert not DirtyGauge(tmp_path / "vmstat").is_low()


def test_the_real_gauge_reads_the_real_file():
    assert "nr_dirty_background_threshold" in Path("/proc/vmstat").read_text()
    assert DirtyGauge().is_low() in {True, False}
