"""Writes into the page cache, made on the event loop where that takes no waiting.

A hop into a thread and back costs several times what a write of 4 KiB into a cached page does, and
a payload of 1 MiB that was just received lies in this core's cache, not in another's. But a write
may wait: for a page to be read, for a journal, or because too much is dirty already. So the
kernel is asked not to wait (RWF_NOWAIT). Where it does not know that for writes (ext4, tmpfs, block
devices; Linux 6.18), ext4 and tmpfs are trusted under these conditions:

- the pages are cached, so that nothing is read or allocated;
- what is dirty in the whole machine is far below where the kernel makes writers wait, and this
  process is in no memory cgroup with a limit of its own;
- no write has waited long of late: the second that does within a second stops this for another.

What is not written here goes to a thread, which also finds out what any error is. A write that was
made in part is made again there, with the same bytes.
"""

import contextlib
import ctypes
import errno
import functools
import mmap
import os
import resource
import time
from pathlib import Path
from typing import Final

from nbdserve.pagecache import is_held

__all__ = ["DirtyGauge", "HotWrites"]

_LONGEST: Final = 1 << 20  # bytes: the loop is kept for some 150 us
_PROBED: Final = 16 << 10  # bytes up to which a look at each page is the cheapest
_SLOW: Final = 0.02  # seconds
_PAUSE: Final = 1.0
_GAUGE_AGE: Final = 0.05  # seconds; less can be written meanwhile than the margin leaves
_TRUSTED: Final = frozenset({0xEF53, 0x01021994})  # linux/magic.h: ext2 to ext4, tmpfs
_CANNOT: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
_UNLIMITED: Final = frozenset({"max", "9223372036854771712"})  # cgroup v2 and v1

_libc = ctypes.CDLL(None, use_errno=True)


class DirtyGauge:
    """How near the machine is to where the kernel makes writers wait for the disk.

    Args:
        vmstat: where the kernel tells; see proc(5), /proc/vmstat.
    """

    def __init__(self, vmstat: Path = Path("/proc/vmstat")) -> None:
        self._vmstat = vmstat
        self._until = 0.0
        self._low = False
        self._limited = _has_memory_limit()

    def is_low(self) -> bool:
        """Tell whether a writer is sure not to be throttled; a look at most each 50 ms."""
        now = time.monotonic()
        if now >= self._until:
            self._until = now + _GAUGE_AGE
            self._low = not self._limited and self._look()
        return self._low

    def _look(self) -> bool:
        # The kernel throttles from the middle between both thresholds (mm/page-writeback.c,
        # dirty_freerun_ceiling); a quarter of the way leaves as much again till the next look.
        try:
            lines = self._vmstat.read_text().splitlines()
            found = {name: int(value) for name, value in map(str.split, lines)}
            background = found["nr_dirty_background_threshold"]
            dirty = found["nr_dirty"] + found["nr_writeback"]
            return dirty < (3 * background + found["nr_dirty_threshold"]) // 4
        except (OSError, KeyError, ValueError):
            return False


@functools.cache
def _gauge() -> DirtyGauge:
    return DirtyGauge()


class HotWrites:
    """Writes to an open file that never wait.

    Args:
        fd: borrowed, open for reading and writing.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._gauge = _gauge()
        self._nowait = True
        self._trusted = _magic(fd) in _TRUSTED
        self._paused_until = 0.0
        self._suspected_until = 0.0
        self._byte = [bytearray(1)]

    def write(self, position: int, data: memoryview) -> bool:
        """Write all of `data` if that takes no waiting; else False, and any part may be written."""
        if len(data) > _LONGEST:
            return False
        if self._nowait:
            try:
                return os.pwritev(self._fd, [data], position, os.RWF_NOWAIT) == len(data)
            except OSError as exc:
                if exc.errno not in _CANNOT:  # it would wait, or has failed
                    return False
                self._nowait = False
        return self._trusted and self._write_trusting(position, data)

    def _write_trusting(self, position: int, data: memoryview) -> bool:
        begun = time.monotonic()
        if begun < self._paused_until or not self._gauge.is_low():
            return False
        suspected = begun < self._suspected_until
        slept = _sleeps() if suspected else 0
        try:
            if not self._is_cached(position, len(data)):
                return False
            count = os.pwrite(self._fd, data, position)
        except OSError:
            return False
        ended = time.monotonic()
        if ended - begun > _SLOW:
            # once may be the scheduler's doing; again, and asleep meanwhile, is not
            self._suspected_until = ended + _PAUSE
            if suspected and _sleeps() > slept:
                self._paused_until = ended + _PAUSE
        return count == len(data)

    def _is_cached(self, position: int, length: int) -> bool:
        if length > _PROBED:  # what is overwritten whole need not be read
            return is_held(self._fd, position, length) and all(
                os.preadv(self._fd, self._byte, at, os.RWF_NOWAIT) == 1
                for at in (position, position + length - 1)
            )
        last = position + length - 1
        while True:
            if os.preadv(self._fd, self._byte, position, os.RWF_NOWAIT) != 1:
                return False
            position += mmap.PAGESIZE - position % mmap.PAGESIZE
            if position > last:
                return True


def _sleeps() -> int:
    """Return how often this thread has gone to sleep of its own accord (getrusage(2))."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def _magic(fd: int) -> int:
    """Return the kind of file system (statfs(2), f_type comes first); the os module hides it."""
    buffer = ctypes.create_string_buffer(256)
    if _libc.fstatfs(fd, buffer):
        return 0
    return ctypes.c_ulong.from_buffer(buffer).value


def _has_memory_limit() -> bool:
    """Tell whether a memory cgroup may make this process wait, or whether that is not known."""
    try:
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return True
    for group in groups:
        _, controllers, path = group.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        root = Path("/sys/fs/cgroup", "memory" if controllers else "")
        folder = root / path.lstrip("/")
        for place in (folder, *folder.parents):
            with contextlib.suppress(OSError):
                if (place / name).read_text().strip() not in _UNLIMITED:
                    return True
            if place == root:
                break
    return False
