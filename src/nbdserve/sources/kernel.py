"""Linux calls that Python's os module lacks: fallocate(2) with modes, a block device's geometry.

Block devices take the same fallocate modes as files (Linux 4.9), so no further ioctl is needed.
Each wrapper raises OSError like the os module does, and blocks: callers run them in a thread.
"""

import ctypes
import enum
import fcntl
import os
import struct
from typing import Final

__all__ = ["FallocateMode", "block_device_sector", "block_device_size", "fallocate"]

_BLKGETSIZE64: Final = 0x80081272  # linux/fs.h: _IOR(0x12, 114, size_t)
_BLKSSZGET: Final = 0x1268  # linux/fs.h: _IO(0x12, 104)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class FallocateMode(enum.IntFlag):
    """Modes of fallocate(2), from linux/falloc.h; KEEP_SIZE alone allocates."""

    KEEP_SIZE = 0x01
    PUNCH_HOLE = 0x02
    ZERO_RANGE = 0x10


def fallocate(fd: int, mode: FallocateMode, offset: int, length: int) -> None:
    """Change how a range of a file is allocated; blocks.

    Raises:
        OSError: EOPNOTSUPP where the file system cannot; see fallocate(2).
    """
    if _libc.fallocate(fd, int(mode), offset, length) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def block_device_size(fd: int) -> int:
    """Return the size of a block device in bytes."""
    (size,) = struct.unpack("Q", fcntl.ioctl(fd, _BLKGETSIZE64, bytes(8)))
    return int(size)


def block_device_sector(fd: int) -> int:
    """Return the logical block size of a block device: what fallocate on it must be aligned to."""
    (sector,) = struct.unpack("i", fcntl.ioctl(fd, _BLKSSZGET, bytes(4)))
    return int(sector)
