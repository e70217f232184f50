"""A sparse file that holds data of a device at the device's own offsets.

What copy-on-write writes to, and what decoded blocks are spilled to. All but `read_nowait` and
`write_nowait` block, and run in I/O threads. Nothing here knows which parts are valid.
"""

import ctypes
import errno
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nbdserve.errors import DeviceError, NoSpaceError
from nbdserve.hotwrites import HotWrites

__all__ = ["DataFile", "fallocate"]

_FULL = {
    errno.ENOSPC: "make room on its file system",
    errno.EDQUOT: "make room in its owner's quota",
    errno.EFBIG: "the file system holds no file so large, or a limit is set: put it elsewhere",
}
_CANNOT = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
_PUNCH: Final = 0x02 | 0x01  # linux/falloc.h: FALLOC_FL_PUNCH_HOLE, FALLOC_FL_KEEP_SIZE

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class DataFile:
    """Reads and writes the data of a device in a file; owns the descriptor.

    Args:
        fd: open for reading, and for writing unless nothing is written.
        start: where offset 0 of the device lies in the file, in bytes.
        name: how messages call the file.
        user: the element whose file it is, for messages.
    """

    def __init__(self, fd: int, start: int, name: str, *, user: str) -> None:
        self._fd = fd
        self._start = start
        self._name = name
        self._user = user
        self._nowait = True
        self._hot = HotWrites(fd)
        self._punches = True

    @classmethod
    def temporary(cls, folder: Path | None, *, user: str, key: str, size: int = 0) -> "DataFile":
        """Make a file without a name, gone when it is closed or the process ends.

        Args:
            folder: where; None is $TMPDIR, else /var/tmp, which unlike /tmp is seldom in memory.
            user: the element whose file it is.
            key: its parameter that names another folder.
            size: bytes it has from the start, all a hole.

        Raises:
            DeviceError: it cannot be made there.
        """
        folder = folder or Path(os.environ.get("TMPDIR") or "/var/tmp")  # noqa: S108 -- no name there
        try:
            with tempfile.TemporaryFile(dir=folder, buffering=0) as made:
                os.ftruncate(made.fileno(), size)
                return cls(os.dup(made.fileno()), 0, f"temporary file in {folder}", user=user)
        except OSError as exc:
            raise DeviceError(
                f"{user}: {folder}: no temporary file can be made: {exc.strerror}; "
                f"name another {key}=",
                exc.errno,
            ) from exc

    def place(self, offset: int) -> tuple[int, int]:
        """Return the descriptor, and where this offset of the device lies in its file."""
        return self._fd, self._start + offset

    def read_nowait(self, offset: int, view: memoryview) -> bool:
        """Fill `view` if all of it is in the page cache; never blocks."""
        if not self._nowait:
            return False
        try:
            return os.preadv(self._fd, [view], self._start + offset, os.RWF_NOWAIT) == len(view)
        except BlockingIOError:
            return False
        except OSError as exc:
            if exc.errno in _CANNOT:  # a file system that does not know RWF_NOWAIT
                self._nowait = False
            return False  # any other error is reported by read

    def read(self, offset: int, view: memoryview) -> None:
        """Fill `view`."""
        done = 0
        while done < len(view):
            try:
                count = os.preadv(self._fd, [view[done:]], self._start + offset + done)
            except OSError as exc:
                raise self._failure("cannot be read", exc) from exc
            if count == 0:
                raise DeviceError(
                    f"{self._user}: {self._name}: was cut short while open; reopen the export"
                )
            done += count

    def write_nowait(self, offset: int, data: memoryview) -> bool:
        """Write all of `data` if that takes no waiting; if not, a part of it may be written."""
        return self._hot.write(self._start + offset, data)

    def write(self, offset: int, buffers: Sequence[bytes | memoryview]) -> None:
        """Write buffers one after the other.

        Raises:
            NoSpaceError: the file system is full; a part may have been written.
            DeviceError: it failed otherwise, likewise.
        """
        position = self._start + offset
        left = [memoryview(buffer) for buffer in buffers if len(buffer)]
        while left:
            try:
                count = os.pwritev(self._fd, left, position)
            except OSError as exc:
                raise self._failure("cannot be written", exc) from exc
            position += count
            while left and count >= len(left[0]):
                count -= len(left.pop(0))
            if left:
                left[0] = left[0][count:]

    def punch(self, offset: int, length: int) -> bool:
        """Give a range back to the file system; False where that cannot be done."""
        if not self._punches:
            return False
        try:
            fallocate(self._fd, _PUNCH, self._start + offset, length)
        except OSError as exc:
            if exc.errno not in _CANNOT:
                raise self._failure("cannot be punched", exc) from exc
            self._punches = False
            return False
        return True

    def prefetch(self, offset: int, length: int) -> None:
        """Ask the kernel to read a range into the page cache; a hint."""
        os.posix_fadvise(self._fd, self._start + offset, length, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)

    def _failure(self, what: str, exc: OSError) -> DeviceError:
        remedy = _FULL.get(exc.errno or 0)
        if remedy is not None:
            return NoSpaceError(
                f"{self._user}: {self._name}: no space for what is written ({exc.strerror}); "
                f"{remedy}"
            )
        return DeviceError(
            f"{self._user}: {self._name}: {what}: {exc.strerror}; check the disk", exc.errno
        )


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """Change how a range of a file is allocated; the os module has no modes for it.

    Raises:
        OSError: EOPNOTSUPP where the file system cannot; see fallocate(2).
    """
    if _libc.fallocate(fd, mode, offset, length) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
