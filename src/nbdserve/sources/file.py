"""The `file` source: a disk image or a block device of this machine.

Hot data is read on the event loop by preadv(RWF_NOWAIT), which never waits for the disk; all else
goes to the I/O threads. A write with FUA is a write and a share in the next fdatasync, not a
synchronous write of its own (RWF_DSYNC): one failed sync must be told to everyone who relies on
it, and at queue depth 16 the group is faster.

Invariant: the descriptor outlives every call that was begun with it, cancelled or not. Otherwise a
thread that was given up could write to whatever file is opened under the same number next.
"""

import asyncio
import errno
import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from nbdserve.device import BlockSize, Capability, Device, DeviceInfo, FileRange
from nbdserve.extents import Extent
from nbdserve.params import BOOLEAN, PATH, param
from nbdserve.sources.commits import Commits
from nbdserve.sources.imagefile import ImageFile
from nbdserve.sources.openfile import Opened, open_image
from nbdserve.threads import io_pool

__all__ = ["FileParams", "FileSource"]

T = TypeVar("T")

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
        help="lock the file (flock), so that no other nbdserve writes to it meanwhile; without "
        "this key only a file that is written is locked",
    )


class FileSource(Device):
    """A disk image or block device of this machine.

    Opened read-only where nothing above can write, and, with a warning, where writing is not
    permitted. Holes are reported, and made by trim and zeroing. Writes go to the page cache, and
    to the disk when the client flushes. Readers of the same file are always allowed; a second
    nbdserve that would write to it is refused.

    Examples:
        nbdserve file disk.img
        nbdserve --read-only file /dev/vg0/golden
        nbdserve --layer cow file golden.img
    """

    Params = FileParams

    def __init__(self, params: FileParams) -> None:
        self._params = params
        self._opened: Opened | None = None
        self._info = DeviceInfo(0)
        self._fd = -1
        self._nowait = True
        self._working: set[Future[Any]] = set()
        self._commits = Commits(self._sync)

    @property
    def info(self) -> DeviceInfo:
        return self._info

    async def open(self, *, read_only: bool) -> None:
        """Open and lock the file.

        Raises:
            DeviceError: it is missing, not permitted, no disk, or locked by another process.
        """
        try:
            self._info = await self._run(self._open, read_only=read_only)
        except BaseException:
            await self.close()  # it may have been opened by a thread that was given up
            raise

    def _open(self, *, read_only: bool) -> DeviceInfo:
        opened = open_image(self._params.path, read_only=read_only, lock=self._params.lock)
        self._opened, self._fd = opened, opened.image.fd
        can = _READ
        if opened.writable:
            can |= Capability.WRITES
            if not opened.image.can_punch():
                can &= ~Capability.TRIM
        return DeviceInfo(opened.image.size, _BLOCK_SIZE, can)

    async def close(self) -> None:
        while self._working:
            await asyncio.wait([asyncio.wrap_future(work) for work in list(self._working)])
        opened, self._opened, self._fd = self._opened, None, -1
        if opened is not None:
            await self._run(opened.image.close)

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
        await self._run(self._image.read, offset, view)

    def file_range(self, offset: int, length: int) -> FileRange | None:
        return FileRange(self._fd, offset)

    async def write(self, offset: int, data: memoryview, *, fua: bool) -> None:
        await self._run(self._image.write, offset, data)
        if fua:
            await self._commits.commit()

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool, may_trim: bool, fast: bool
    ) -> None:
        await self._run(self._image.write_zeroes, offset, length, may_trim=may_trim, fast=fast)
        if fua:
            await self._commits.commit()

    async def trim(self, offset: int, length: int, *, fua: bool) -> None:
        await self._run(self._image.trim, offset, length)
        if fua:
            await self._commits.commit()

    async def flush(self) -> None:
        await self._commits.commit()

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        return await self._run(self._image.extents, offset, length)

    async def cache(self, offset: int, length: int) -> None:
        await self._run(self._image.prefetch, offset, length)

    @property
    def _image(self) -> ImageFile:
        assert self._opened is not None, "open() comes first"
        return self._opened.image

    async def _sync(self) -> None:
        await self._run(self._image.sync)

    async def _run(self, call: Callable[..., T], *args: object, **options: object) -> T:
        """Run a blocking call in a thread; cancelling gives it up, and `close` waits for it."""
        work = io_pool().submit(functools.partial(call, *args, **options))
        self._working.add(work)
        work.add_done_callback(self._working.discard)
        return await asyncio.wrap_future(work)
