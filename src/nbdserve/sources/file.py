"""The `file` source: a disk image or a block device of this machine.

Hot data is read on the event loop by preadv(RWF_NOWAIT), which never waits for the disk, and
written there where that takes no waiting either; cold reads go to the kernel's ring (io_uring) or,
like all else, to the I/O threads. A write with FUA
is a write and a share in the next fdatasync, not a synchronous write of its own (RWF_DSYNC): a
failed sync must be told to all who rely on it, and of two syncs at once the kernel tells only one.

Invariant: a call that has begun in a thread is waited for, cancelled or not. Given up, a write
could land on top of a later one, or in whatever file is opened under the same number next. Reads
in threads alone may be given up: all they can do is fill a buffer that nobody looks at any more.
"""

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nbdserve.device import BlockSize, Capability, Device, DeviceInfo, Done, FileRange
from nbdserve.extents import Extent
from nbdserve.hotwrites import HotWrites
from nbdserve.overlay.groupcommit import GroupCommit
from nbdserve.overlay.writebatch import WriteBatch
from nbdserve.params import BOOLEAN, PATH, param
from nbdserve.sources.coldreads import ColdReads
from nbdserve.sources.imagefile import ImageFile
from nbdserve.sources.openfile import Opened, open_image
from nbdserve.unbroken import run_unbroken

__all__ = ["FileParams", "FileSource"]

_READ = Capability.CACHE | Capability.EXTENTS
_BLOCK_SIZE = BlockSize(1, 4096, 32 << 20)
_NO_NOWAIT = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


@dataclass(frozen=True, slots=True, kw_only=True)
class FileParams:
    """Parameters of `file`."""

    path: Path = param(PATH, argument=True, help="the image file or block device")
    lock: bool | None = param(
        BOOLEAN,
        default=None,
        help="lock the file (flock) against another nbdserve: shared among readers, alone for one "
        "that writes (default: only if it is written)",
    )


class FileSource(Device):
    """A disk image or block device of this machine.

    Opened read-only where nothing above can write, and, with a warning, where writing is not
    permitted. Holes are reported, and made by trim and zeroing. Writes go to the page cache, and
    to the disk when the client flushes. Readers of the same file are always allowed; a second
    nbdserve that would write to it is refused.

        nbdserve file disk.img
        nbdserve --read-only file /dev/vg0/golden
        nbdserve --layer cow file golden.img
    """

    Params = FileParams
    shareable = True

    def __init__(self, params: FileParams) -> None:
        self._params = params
        self._opened: Opened | None = None
        self._info = DeviceInfo(0)
        self._fd = -1
        self._nowait = True
        self._commit = GroupCommit(self._sync)
        self._reads = ColdReads(self._read, self._prefetch)
        self._writes = WriteBatch(self._write, self._commit.add)
        self._hot: HotWrites | None = None  # of what is not written, nothing is hot

    @property
    def info(self) -> DeviceInfo:
        return self._info

    async def open(self, *, read_only: bool) -> None:
        """Open and lock the file.

        Raises:
            DeviceError: it is missing, not permitted, no disk, or locked by another process.
        """
        self._opened = opened = await run_unbroken(
            partial(open_image, self._params.path, read_only=read_only, lock=self._params.lock),
            undo=lambda opened: opened.image.close(),
        )
        self._fd = opened.image.fd
        self._reads.open(self._fd)
        self._hot = HotWrites(self._fd) if opened.writable else None
        self._info = DeviceInfo(opened.image.size, _BLOCK_SIZE, _capabilities(opened))

    async def close(self) -> None:
        await self._writes.close()
        await self._commit.close()
        await self._reads.close()
        self._fd = -1
        await run_unbroken(self._image.close)

    def read_into_nowait(self, offset: int, view: memoryview) -> bool:
        if not self._nowait:
            return False
        try:
            return os.preadv(self._fd, [view], offset, os.RWF_NOWAIT) == len(view)
        except BlockingIOError:
            return False
        except OSError as exc:
            if exc.errno in _NO_NOWAIT:  # a file system that does not know RWF_NOWAIT
                self._nowait = False
            return False  # any other error is reported by read_into

    async def read_into(self, offset: int, view: memoryview) -> None:
        await self._reads(offset, view)

    def begin_read(self, offset: int, view: memoryview, done: Done) -> bool:
        self._reads.add(offset, view, done)
        return True

    def file_range(self, offset: int, length: int) -> FileRange | None:
        return FileRange(self._fd, offset)

    async def write(self, offset: int, data: memoryview, *, fua: bool) -> None:
        await run_unbroken(self._image.write, offset, data)
        if fua:
            await self._commit()

    def write_nowait(self, offset: int, data: memoryview, *, fua: bool, done: Done) -> bool:
        if self._hot is None or not self._hot.write(offset, data):
            self._writes.add(offset, data, fua=fua, done=done)
        elif fua:
            self._commit.add(done)
        else:
            done(None)
        return True

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool, may_trim: bool, fast: bool
    ) -> None:
        await run_unbroken(
            partial(self._image.write_zeroes, may_trim=may_trim, fast=fast), offset, length
        )
        if fua:
            await self._commit()

    async def trim(self, offset: int, length: int, *, fua: bool) -> None:
        await run_unbroken(self._image.trim, offset, length)
        if fua:
            await self._commit()

    async def flush(self) -> None:
        await self._commit()

    def flush_nowait(self, done: Done) -> bool:
        self._commit.add(done)
        return True

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        return await run_unbroken(self._image.extents, offset, length)

    async def cache(self, offset: int, length: int) -> None:
        await run_unbroken(self._image.prefetch, offset, length)

    def _read(self, offset: int, view: memoryview) -> None:
        self._image.read(offset, view)

    def _prefetch(self, offset: int, length: int) -> None:
        self._image.prefetch(offset, length)

    def _write(self, offset: int, data: memoryview) -> None:
        self._image.write(offset, data)

    @property
    def _image(self) -> ImageFile:
        assert self._opened is not None, "open() comes first"
        return self._opened.image

    async def _sync(self) -> None:
        await run_unbroken(self._image.sync)


def _capabilities(opened: Opened) -> Capability:
    if not opened.writable:
        return _READ
    return _READ | (Capability.WRITES if opened.punches else Capability.WRITES & ~Capability.TRIM)
