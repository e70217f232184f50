"""An open image file or block device, by calls that block: what the `file` source runs in threads.

Zeroes and holes are made by fallocate, never by writing, where the file system can; what it cannot
is found out once and remembered. Every failure names the file, the place and the remedy.

After a failed fdatasync the kernel has dropped the dirty pages and would report success next time,
so the failure is kept: no later sync succeeds until the file is opened anew. (PostgreSQL lost data
to this in 2018; see fsync(2), "a subsequent fsync" under EIO.)
"""

import contextlib
import errno
import os
import threading
from pathlib import Path

from nbdserve.errors import DeviceError, NoSpaceError, NotSupportedError
from nbdserve.extents import DATA, ZERO_HOLE, Extent, clip
from nbdserve.ranges import align_down, align_up
from nbdserve.sources.kernel import FallocateMode, fallocate

__all__ = ["ImageFile", "aligned_middle"]

_PUNCH = FallocateMode.PUNCH_HOLE | FallocateMode.KEEP_SIZE
_ZERO = FallocateMode.ZERO_RANGE | FallocateMode.KEEP_SIZE
_ALLOCATE = FallocateMode.KEEP_SIZE
_CANNOT = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODEV})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_MOST_EXTENTS = 1024  # looked up in one call: some milliseconds of lseek
_ZEROES = memoryview(bytes(1 << 20))


class ImageFile:
    """An open file as a disk. Calls block and may overlap, but for `close`, which comes last.

    Attributes:
        path: what messages call it.
        fd: the descriptor, which this object owns.
        size: size in bytes when it was opened.
    """

    def __init__(self, path: Path, fd: int, size: int, *, sector: int = 1) -> None:
        """Take over an open descriptor.

        Args:
            path: what messages call it.
            fd: the descriptor.
            size: its size in bytes.
            sector: of a block device, what fallocate on it must be aligned to; of a file 1.
        """
        self.path = path
        self.fd = fd
        self.size = size
        self._sector = sector
        self._cannot: set[FallocateMode] = set()
        self._seeks = True
        self._syncing = threading.Lock()
        self._lost: OSError | None = None

    def close(self) -> None:
        """Close the descriptor, and with it give up the lock."""
        os.close(self.fd)

    def read(self, offset: int, view: memoryview) -> None:
        """Fill all of `view`; never returns bytes that the file does not have."""
        done = 0
        while done < len(view):
            try:
                count = os.preadv(self.fd, [view[done:]], offset + done)
            except OSError as exc:
                raise self._failure("cannot be read", offset + done, exc) from exc
            if count == 0:
                raise self._shrunk(offset + done)
            done += count

    def write(self, offset: int, data: memoryview) -> None:
        """Write all of `data`."""
        done = 0
        while done < len(data):
            try:
                done += os.pwrite(self.fd, data[done:], offset + done)
            except OSError as exc:
                raise self._failure("cannot be written", offset + done, exc) from exc

    def write_zeroes(self, offset: int, length: int, *, may_trim: bool, fast: bool) -> None:
        """Zero a range by the cheapest way there is.

        Raises:
            NotSupportedError: `fast`, and writing would be the only way; nothing has changed.
        """
        start, middle = aligned_middle(offset, length, self._sector)
        if middle and self._zero_by_fallocate(start, middle, may_trim=may_trim, fast=fast):
            self._write_zero_bytes(offset, start - offset)
            self._write_zero_bytes(start + middle, offset + length - start - middle)
        elif fast and length:
            raise NotSupportedError(f"file: {self.path}: cannot zero faster than by writing")
        else:
            self._write_zero_bytes(offset, length)

    def trim(self, offset: int, length: int) -> None:
        """Punch a hole, where that can be done; else do nothing, as a trim may."""
        start, middle = aligned_middle(offset, length, self._sector)
        if middle:
            self._fallocate(_PUNCH, start, middle)

    def can_punch(self) -> bool:
        """Find out whether holes can be punched, behind the end, where there is nothing to lose."""
        if self._sector == 1:
            before = os.fstat(self.fd)
            self._fallocate(_PUNCH, align_up(self.size, 1 << 20), 1 << 20)
            # nothing was changed: a web server beside us would else tell a new version of the file
            with contextlib.suppress(OSError):
                os.utime(self.fd, ns=(before.st_atime_ns, before.st_mtime_ns))
        return _PUNCH not in self._cannot

    def sync(self) -> None:
        """Make every write that has returned durable.

        Raises:
            DeviceError: writes were lost, now or before.
        """
        # One at a time: of two syncs at once the kernel tells only one that writes were lost.
        with self._syncing:
            if self._lost is None:
                try:
                    os.fdatasync(self.fd)
                except OSError as exc:
                    self._lost = exc
            if self._lost is not None:
                raise DeviceError(
                    f"file: {self.path}: writes were lost ({self._lost.strerror}); "
                    "check the disk, then restart the export",
                    self._lost.errno,
                )

    def prefetch(self, offset: int, length: int) -> None:
        """Have the kernel read a range into its page cache."""
        try:
            os.posix_fadvise(self.fd, offset, length, os.POSIX_FADV_WILLNEED)
        except OSError as exc:
            raise self._failure("cannot be read", offset, exc) from exc

    def extents(self, offset: int, length: int) -> list[Extent]:
        """Look up the holes of a range; stops short after some number of them.

        Source: lseek(2), SEEK_DATA and SEEK_HOLE. The descriptor's position, which they move, is
        used by nothing else.
        """
        found: list[Extent] = []
        position, end = offset, offset + length
        while self._seeks and position < end and len(found) < _MOST_EXTENTS:
            data = self._seek(position, os.SEEK_DATA, end)
            if data > position:
                found.append(Extent(data - position, ZERO_HOLE))
                position = data
            elif self._seeks:
                hole = max(self._seek(position, os.SEEK_HOLE, end), position + 1)
                found.append(Extent(hole - position, DATA))
                position = hole
        return clip(found, length) if self._seeks else [Extent(length, DATA)]

    def _seek(self, position: int, whence: int, end: int) -> int:
        """Find the next data or hole, `end` if there is none before the end of the file."""
        try:
            return os.lseek(self.fd, position, whence)
        except OSError as exc:
            if exc.errno != errno.ENXIO:
                self._seeks = False  # a block device, or a file system that does not know
                return position
        # What a shorter file lacks is no hole: a client would take it for zeroes.
        if os.fstat(self.fd).st_size < min(end, self.size):
            raise self._shrunk(position)
        return end

    def _zero_by_fallocate(self, offset: int, length: int, *, may_trim: bool, fast: bool) -> bool:
        if may_trim and self._fallocate(_PUNCH, offset, length):
            return True
        # For a block device that cannot, the kernel zeroes by writing: right, but not fast.
        if not (fast and self._sector > 1) and self._fallocate(_ZERO, offset, length):
            return True
        if may_trim or self._sector > 1 or _ALLOCATE in self._cannot:
            return False
        return self._fallocate(_PUNCH, offset, length) and self._fallocate(
            _ALLOCATE, offset, length
        )

    def _fallocate(self, mode: FallocateMode, offset: int, length: int) -> bool:
        """Try it; False if it cannot be done here, which is remembered."""
        if mode in self._cannot:
            return False
        try:
            fallocate(self.fd, mode, offset, length)
        except OSError as exc:
            if exc.errno in _CANNOT:
                self._cannot.add(mode)
                return False
            if exc.errno in {errno.EINVAL, errno.EFBIG}:  # about this range, not for ever
                return False
            raise self._failure("cannot be allocated anew", offset, exc) from exc
        return True

    def _write_zero_bytes(self, offset: int, length: int) -> None:
        done = 0
        while done < length:
            step = min(length - done, len(_ZEROES))
            self.write(offset + done, _ZEROES[:step])
            done += step

    def _shrunk(self, position: int) -> DeviceError:
        return DeviceError(
            f"file: {self.path}: shrank while open (nothing at {position}, size was {self.size}); "
            "put it back and restart the export"
        )

    def _failure(self, what: str, offset: int, exc: OSError) -> DeviceError:
        text = f"file: {self.path}: {what} at {offset}: {exc.strerror}"
        if exc.errno in _FULL:
            return NoSpaceError(f"{text}; make room on its file system")
        return DeviceError(f"{text}; check the disk", exc.errno)


def aligned_middle(offset: int, length: int, unit: int) -> tuple[int, int]:
    """Return offset and length of the whole units within a range; length 0 if there are none."""
    start, end = align_up(offset, unit), align_down(offset + length, unit)
    return (start, end - start) if end > start else (offset, 0)
