"""A sparse file that holds the chunks of one image, each at its own offset of the image.

So a read is one preadv, and a range may be sent straight out of the file. Nothing here knows which
chunks are valid. All but `read_nowait` block, and run in I/O threads.

Locks (flock) say who uses the file: every process that has it open shares it, and only who has it
alone may punch holes into it, for the others may be reading what would be punched.
"""

import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from nbdserve.datafile import DataFile, fallocate
from nbdserve.ranges import align_up

__all__ = ["FULL", "ChunkFile"]

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors that mean there is no room for more."""

_CANNOT: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
_BLOCK: Final = 4096
_PUNCH: Final = 0x02 | 0x01  # linux/falloc.h: FALLOC_FL_PUNCH_HOLE, FALLOC_FL_KEEP_SIZE


class ChunkFile:
    """An open file of chunks.

    Attributes:
        path: its name.
        fd: the descriptor, which this object owns.
        alone: whether this process alone has it open, and keeps it so until `share`.
        punches: whether holes can be punched here.
        read_nowait: fills a view from an offset if all of it is in the page cache; never blocks.
    """

    def __init__(self, path: Path, size: int) -> None:
        """Open the file, or make it; it has `size` bytes then.

        Raises:
            OSError: it cannot be had.
        """
        self.path = path
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.alone = False
        self.read_nowait = DataFile(self.fd, 0, str(path), user="cache").read_nowait
        try:
            if not self.try_alone():
                fcntl.flock(self.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if os.fstat(self.fd).st_size != size:
                os.ftruncate(self.fd, size)
            # tried behind the end, where there is nothing to lose
            self.punches = self._try_to_punch(align_up(size, _BLOCK), _BLOCK)
        except BaseException:
            os.close(self.fd)
            raise

    def try_alone(self) -> bool:
        """Keep everybody else out, if nobody has it open; ask only while the folder is locked."""
        if not self.alone:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                # a conversion that fails has lost the lock there was (flock(2)); nobody can have
                # taken the other kind meanwhile, for that takes the lock on the folder
                fcntl.flock(self.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return False
            self.alone = True
        return True

    def share(self) -> None:
        """Let others in again."""
        if self.alone:
            fcntl.flock(self.fd, fcntl.LOCK_SH)
            self.alone = False

    def close(self) -> None:
        """Close the file, and with it give up the lock."""
        os.close(self.fd)

    def read(self, offset: int, view: memoryview) -> None:
        """Fill `view`.

        Raises:
            OSError: the disk failed, or the file is too short.
        """
        done = 0
        while done < len(view):
            count = os.preadv(self.fd, [view[done:]], offset + done)
            if count == 0:
                raise OSError(errno.EIO, "the file was cut short")
            done += count

    def write(self, offset: int, data: memoryview) -> None:
        """Write all of `data`; when it fails, a part may have been written."""
        done = 0
        while done < len(data):
            done += os.pwrite(self.fd, data[done:], offset + done)

    def punch(self, runs: Sequence[tuple[int, int]]) -> None:
        """Give ranges (offset, length) back to the file system, where it can do that."""
        if self.punches:
            for offset, length in runs:
                fallocate(self.fd, _PUNCH, offset, length)

    def _try_to_punch(self, offset: int, length: int) -> bool:
        try:
            fallocate(self.fd, _PUNCH, offset, length)
        except OSError as exc:
            if exc.errno in _CANNOT:
                return False
            raise
        return True

    def clear(self) -> None:
        """Give all of it back."""
        size = os.fstat(self.fd).st_size
        os.ftruncate(self.fd, 0)
        os.ftruncate(self.fd, size)

    def allocated(self) -> Iterator[tuple[int, int]]:
        """List the ranges (offset, length) that are no holes (lseek(2), SEEK_DATA)."""
        position = 0
        while True:
            try:
                start = os.lseek(self.fd, position, os.SEEK_DATA)
                position = os.lseek(self.fd, start, os.SEEK_HOLE)
            except OSError:  # ENXIO: no more; else a file system that does not tell
                return
            yield start, position - start

    def prefetch(self, offset: int, length: int) -> None:
        """Ask the kernel to read a range into the page cache; a hint."""
        os.posix_fadvise(self.fd, offset, length, os.POSIX_FADV_WILLNEED)

    def sync(self) -> None:
        """Have the kernel write what it holds, and tell what it could not."""
        os.fdatasync(self.fd)
