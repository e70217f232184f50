"""The `file` source: a disk image or a block device of this machine.

Hot data is read on the event loop by preadv(RWF_NOWAIT), which never waits for the disk; all else
goes to the I/O threads. Zeroes and holes are made by fallocate, never by writing, where the file
system can; what it cannot is found out once and remembered.

After a failed fdatasync the kernel has dropped the dirty pages and would report success next time,
so the failure is kept: no later flush succeeds until the file is opened anew.
"""

import errno
import fcntl
import logging
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nbdserve.device import BlockSize, Capability, Device, DeviceInfo, FileRange
from nbdserve.errors import DeviceError, NotSupportedError
from nbdserve.extents import DATA, ZERO_HOLE, Extent, clip
from nbdserve.params import BOOLEAN, PATH, param
from nbdserve.sources.kernel import FallocateMode, block_device_size, fallocate
from nbdserve.threads import run_io

__all__ = ["FileParams", "FileSource"]

log = logging.getLogger(__name__)

_READ = Capability.CACHE | Capability.EXTENTS
_BLOCK_SIZE = BlockSize(1, 4096, 32 << 20)
_PUNCH = FallocateMode.PUNCH_HOLE | FallocateMode.KEEP_SIZE
_ZERO = FallocateMode.ZERO_RANGE | FallocateMode.KEEP_SIZE
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ETXTBSY})
_CANNOT = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV})
_MOST_EXTENTS = 1024  # looked up in one call: some milliseconds of lseek
_ZERO_CHUNK = bytes(1 << 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileParams:
    """Parameters of `file`."""

    path: Path = param(PATH, argument=True, help="the image file or block device")
    lock: bool = param(
        BOOLEAN,
        default=True,
        help="lock a writable file, so that no second nbdserve writes to it (flock)",
    )


class FileSource(Device):
    """A disk image or block device of this machine.

    Opened read-only where nothing above can write, and, with a warning, where writing is not
    permitted. Holes are reported, and made by trim and zeroing.

        nbdserve file disk.img
        nbdserve --read-only file /dev/vg0/golden
        nbdserve --layer cow file golden.img
    """

    Params = FileParams

    def __init__(self, params: FileParams) -> None:
        self._path = params.path
        self._lock = params.lock
        self._fd = -1
        self._size = 0
        self._can = _READ
        self._nowait = True
        self._punches = True
        self._zeroes = True
        self._seeks = True
        self._flush_failure: OSError | None = None

    @property
    def info(self) -> DeviceInfo:
        return DeviceInfo(self._size, _BLOCK_SIZE, self._can)

    async def open(self, *, read_only: bool) -> None:
        await run_io(self._open, read_only=read_only)

    async def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # Reading

    def read_into_nowait(self, offset: int, view: memoryview) -> bool:
        if not self._nowait:
            return False
        try:
            return os.preadv(self._fd, [view], offset, os.RWF_NOWAIT) == len(view)
        except BlockingIOError:
            return False
        except OSError as exc:
            if exc.errno in _CANNOT:  # a file system that does not know RWF_NOWAIT
                self._nowait = False
            return False  # any other error is reported by read_into

    async def read_into(self, offset: int, view: memoryview) -> None:
        await run_io(self._read, offset, view)

    def file_range(self, offset: int, length: int) -> FileRange | None:
        return FileRange(self._fd, offset)

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        if not self._seeks:
            return [Extent(length, DATA)]
        return await run_io(self._extents, offset, length)

    async def cache(self, offset: int, length: int) -> None:
        await run_io(os.posix_fadvise, self._fd, offset, length, os.POSIX_FADV_WILLNEED)

    # Writing

    async def write(self, offset: int, data: memoryview, *, fua: bool) -> None:
        await run_io(self._write, offset, data)
        if fua:
            await self.flush()

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool, may_trim: bool, fast: bool
    ) -> None:
        await run_io(self._write_zeroes, offset, length, may_trim=may_trim, fast=fast)
        if fua:
            await self.flush()

    async def trim(self, offset: int, length: int, *, fua: bool) -> None:
        if self._punches:
            await run_io(self._trim, offset, length)
        if fua:
            await self.flush()

    async def flush(self) -> None:
        if self._flush_failure is None:
            try:
                await run_io(os.fdatasync, self._fd)
            except OSError as exc:
                self._flush_failure = exc
        if self._flush_failure is not None:
            failure = self._flush_failure
            raise DeviceError(
                f"file: {self._path}: writes were lost ({failure.strerror}); "
                "check the disk and reopen the export",
                failure.errno,
            )

    # In a thread

    def _open(self, *, read_only: bool) -> None:
        fd = self._open_fd(read_only=read_only)
        try:
            self._size = self._measure(fd)
            if not read_only and self._can & Capability.WRITE and self._lock:
                self._take_lock(fd)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def _open_fd(self, *, read_only: bool) -> int:
        # O_NONBLOCK: opening a fifo must not wait for its writer
        flags = os.O_CLOEXEC | os.O_NONBLOCK
        refused: OSError | None = None
        if not read_only:
            try:
                fd = os.open(self._path, flags | os.O_RDWR)
            except OSError as exc:
                if exc.errno not in _REFUSED:
                    raise self._cannot_open(exc) from exc
                refused = exc
            else:
                self._can |= Capability.WRITES
                return fd
        try:
            fd = os.open(self._path, flags | os.O_RDONLY)
        except OSError as exc:
            raise self._cannot_open(exc) from exc
        if refused is not None:
            log.warning("file is served read-only path=%s: %s", self._path, refused.strerror)
        return fd

    def _cannot_open(self, exc: OSError) -> DeviceError:
        remedy = {
            errno.ENOENT: "check the path",
            errno.EACCES: "check its permissions and those of its folders",
            errno.EISDIR: "name an image file in it",
        }.get(exc.errno or 0, "check the file")
        return DeviceError(f"file: {self._path}: {exc.strerror}; {remedy}", exc.errno)

    def _measure(self, fd: int) -> int:
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode):
            return os.fstat(fd).st_size
        if stat.S_ISBLK(mode):
            return block_device_size(fd)
        what = "a folder" if stat.S_ISDIR(mode) else "neither a file nor a block device"
        raise DeviceError(f"file: {self._path}: is {what}; name a disk image", errno.EINVAL)

    def _take_lock(self, fd: int) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise DeviceError(
                f"file: {self._path}: another process writes to it; "
                "end it, serve it --read-only, or put lock=false",
                errno.EBUSY,
            ) from exc
        except OSError as exc:  # a network file system without locks
            log.warning("file cannot be locked path=%s: %s", self._path, exc.strerror)

    def _read(self, offset: int, view: memoryview) -> None:
        done = 0
        while done < len(view):
            count = os.preadv(self._fd, [view[done:]], offset + done)
            if count == 0:
                raise DeviceError(
                    f"file: {self._path}: shrank while open (nothing at {offset + done}, "
                    f"size was {self._size}); reopen the export"
                )
            done += count

    def _write(self, offset: int, data: memoryview) -> None:
        done = 0
        while done < len(data):
            done += os.pwrite(self._fd, data[done:], offset + done)

    def _write_zeroes(self, offset: int, length: int, *, may_trim: bool, fast: bool) -> None:
        if may_trim and self._punches and self._fallocate(_PUNCH, offset, length):
            return
        if self._zeroes and self._fallocate(_ZERO, offset, length):
            return
        if fast:
            raise NotSupportedError(f"file: {self._path}: cannot zero faster than by writing")
        done = 0
        while done < length:
            step = min(length - done, len(_ZERO_CHUNK))
            done += os.pwrite(self._fd, memoryview(_ZERO_CHUNK)[:step], offset + done)

    def _trim(self, offset: int, length: int) -> None:
        self._fallocate(_PUNCH, offset, length)

    def _fallocate(self, mode: FallocateMode, offset: int, length: int) -> bool:
        """Try it; False if it cannot be done here, which is remembered."""
        try:
            fallocate(self._fd, mode, offset, length)
        except OSError as exc:
            if exc.errno not in _CANNOT:
                raise
            if exc.errno != errno.EINVAL:  # that one is about this range: a block device's sector
                if mode == _PUNCH:
                    self._punches = False
                else:
                    self._zeroes = False
            return False
        return True

    def _extents(self, offset: int, length: int) -> list[Extent]:
        # lseek moves the descriptor's position, which nothing else here uses
        found: list[Extent] = []
        position, end = offset, offset + length
        while position < end and len(found) < _MOST_EXTENTS:
            try:
                data = os.lseek(self._fd, position, os.SEEK_DATA)
            except OSError as exc:
                if exc.errno != errno.ENXIO:  # ENXIO: no data from here to the end
                    self._seeks = False
                    return [Extent(length, DATA)]
                data = end
            if data > position:
                found.append(Extent(data - position, ZERO_HOLE))
                position = data
                continue
            hole = max(os.lseek(self._fd, position, os.SEEK_HOLE), position + 1)
            found.append(Extent(hole - position, DATA))
            position = hole
        return clip(found, length)
