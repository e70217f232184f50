"""Whether bytes of a file can be sent without waiting for the disk.

sendfile reads what is not in the page cache, and the event loop must never wait for a disk. So the
kernel is asked first: cachestat(2) counts the pages that are cached, and one byte is read from
every 64 KiB of them with RWF_NOWAIT, because a page that is just being read counts as cached too. A
page can still go between the question and the send; that is one read from the disk, once.

Where the kernel cannot tell (before Linux 6.5, or forbidden by seccomp) the answer is always no,
and nothing is sent without a copy.
"""

import ctypes
import mmap
import os
from collections.abc import Iterable
from typing import Final

__all__ = ["is_held", "is_resident"]

_CACHESTAT: Final = 451  # asm-generic/unistd.h: the same number on all architectures but alpha
_STEP: Final = 64 << 10  # what readahead brings together mostly arrives together

_Range = ctypes.c_uint64 * 2  # linux/mman.h, struct cachestat_range: off, len
_Counts = ctypes.c_uint64 * 5  # struct cachestat: nr_cache comes first
# PyDLL keeps the GIL: the call takes a microsecond, and giving it away could cost milliseconds
_syscall = ctypes.PyDLL(None).syscall
_syscall.argtypes = [
    ctypes.c_long, ctypes.c_uint, ctypes.POINTER(_Range), ctypes.POINTER(_Counts), ctypes.c_uint,
]  # fmt: skip
_syscall.restype = ctypes.c_long


def is_resident(fd: int, offset: int, length: int) -> bool:
    """Tell whether all these bytes of an open file can be read without waiting; never blocks."""
    return is_held(fd, offset, length) and _is_up_to_date(
        fd, (*range(offset, offset + length, _STEP), offset + length - 1)
    )


def is_held(fd: int, offset: int, length: int) -> bool:
    """Tell whether the page cache has a page for each of these bytes, read already or being read.

    What it has and the first and last byte can be read of, can be written over without waiting for
    the disk. Never blocks.
    """
    counts = _Counts()
    if _syscall(_CACHESTAT, fd, _Range(offset, length), counts, 0):
        return False
    pages = -(-(offset + length) // mmap.PAGESIZE) - offset // mmap.PAGESIZE
    return counts[0] >= pages


def _is_up_to_date(fd: int, places: Iterable[int]) -> bool:
    byte = [bytearray(1)]
    try:
        for at in places:
            if os.preadv(fd, byte, at, os.RWF_NOWAIT) != 1:
                return False
    except OSError:
        return False
    return True
