"""Where decoded data goes that memory has no room for: an unlinked temporary file.

What is decoded once is not decoded again. The file is sparse, each block lies in it at its own
offset of the image, and it is gone when the export is closed or the process ends, however it ends.
The kernel keeps it in the page cache as long as it has memory to spare.

Nothing is ever taken out of it again: a read that is under way, or a send without a copy, finds its
bytes. When the file system is nearly full, or `limit` is reached, nothing more is put in; what does
not fit is decoded anew when it is wanted. One writer a block.
"""

import asyncio
import functools
import logging
import os
import threading
from array import array
from collections.abc import Sequence
from pathlib import Path

from nbdserve.datafile import DataFile
from nbdserve.device import FileRange
from nbdserve.errors import DeviceError, NoSpaceError
from nbdserve.threads import run_io
from nbdserve.unbroken import run_unbroken
from nbdserve.xzengine.grains import parts

__all__ = ["Spill"]

log = logging.getLogger(__name__)

_CHUNK = 1 << 20
_LEAVE_FREE = 1 << 30  # bytes of the file system for others, or a tenth of it if that is less
_LEAVE_FRACTION = 10
_BACKLOG = 8 << 20  # bytes on their way to the file before new blocks wait


class Spill:
    """Decoded blocks on disk.

    Args:
        starts: for each block its offset in the image, then the size of the image.
        folder: where the file is made; None is $TMPDIR, else /var/tmp.
        limit: bytes that may be put in; 0: nothing, None: as the file system has room.
    """

    def __init__(self, starts: Sequence[int], *, folder: Path | None, limit: int | None) -> None:
        self._starts = starts
        self._folder = folder
        self._limit = limit
        self._places = array("q", [-1]) * len(starts)
        self._file: DataFile | None = None
        self._opening = asyncio.Lock()
        self._full = limit == 0
        self._moving: dict[int, memoryview] = {}  # on their way, and what they are meanwhile
        self._tasks: set[asyncio.Task[None]] = set()
        self._backlog = 0
        self._settled = asyncio.Event()
        self._counting = threading.Lock()
        self.used = 0
        """Bytes put in so far."""

    @property
    def has_room(self) -> bool:
        """Whether more can be put in, as far as is known."""
        return not self._full

    async def open(self) -> DataFile:
        """Return the file, made when it is first asked for.

        Raises:
            DeviceError: it cannot be made.
        """
        async with self._opening:
            if self._file is None:
                make = functools.partial(
                    DataFile.temporary,
                    self._folder,
                    user="xz",
                    key="spill-dir",
                    size=self._starts[-1],  # zeroes at its end are not stored
                )
                self._file = await run_unbroken(make, undo=DataFile.close)
            return self._file

    async def close(self) -> None:
        """Give the file back."""
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._file is not None:
            await run_io(self._file.close)

    # Reading

    def holds(self, number: int) -> bool:
        """Tell whether a block lies in the file whole."""
        return self._places[number] >= 0

    def place_of(self, number: int) -> int:
        """Return where a block lies in the file, or would."""
        place = self._places[number]
        return place if place >= 0 else self._starts[number]

    def moving(self, number: int) -> memoryview | None:
        """Return a block that is on its way to the file."""
        return self._moving.get(number)

    def read_nowait(self, place: int, view: memoryview) -> bool:
        """Fill `view` from a place in the file if the page cache has it."""
        return self._file is not None and self._file.read_nowait(place, view)

    async def read(self, place: int, view: memoryview) -> None:
        """Fill `view` from a place in the file."""
        assert self._file is not None, "nothing was put in"
        await run_io(self._file.read, place, view)

    def file_range(self, place: int) -> FileRange | None:
        """Tell where a place in the file lies for a send without a copy."""
        return None if self._file is None else FileRange(*self._file.place(place))

    # Putting in

    def alias(self, number: int, other: int) -> None:
        """Say that a block has the bytes of another one, which lies in the file."""
        self._places[number] = self._places[other]

    def complete(self, number: int) -> None:
        """Say that a block lies in the file whole, at its own place."""
        self._places[number] = self._starts[number]

    def reserve(self, length: int) -> None:
        """Count bytes that are about to be put in, from any thread.

        Raises:
            NoSpaceError: there is no room for them.
        """
        with self._counting:
            if self._limit is not None and self.used + length > self._limit:
                raise NoSpaceError(f"xz: the spill file has reached spill={self._limit >> 20}M")
            self.used += length

    def write_in(self, offset: int, data: memoryview) -> None:
        """Put data in at an offset of the image, for which room is reserved; blocks.

        Raises:
            NoSpaceError: there is no room.
        """
        assert self._file is not None, "open comes first"
        self._file.write(offset, (data,))

    async def settle(self) -> None:
        """Wait until little is on its way, so that memory stays bounded."""
        while self._backlog > _BACKLOG:
            self._settled.clear()
            await self._settled.wait()

    def move(self, number: int, data: memoryview) -> None:
        """Begin to put a block in that memory has no room for any more."""
        if self._full or self.holds(number) or number in self._moving:
            return
        self._moving[number] = data
        self._backlog += len(data)
        task = asyncio.get_running_loop().create_task(self._move(number, data))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _move(self, number: int, data: memoryview) -> None:
        try:
            file = await self.open()
            await run_unbroken(self._refuse_when_nearly_full, file)
            await run_unbroken(self._copy_in, self._starts[number], data)
        except DeviceError as exc:
            self.give_up(exc)
        else:
            self.complete(number)
        finally:
            del self._moving[number]
            self._backlog -= len(data)
            self._settled.set()

    def give_up(self, exc: DeviceError) -> None:
        """Put nothing in any more."""
        if not self._full:
            self._full = True
            log.warning("xz keeps no more decoded data on disk used=%d: %s", self.used, exc)

    def _copy_in(self, offset: int, data: memoryview) -> None:
        for at in range(0, len(data), _CHUNK):
            chunk = data[at : at + _CHUNK]
            for begin, end, zero in parts(chunk, offset + at):
                if not zero:
                    self.reserve(end - begin)
                    self.write_in(offset + at + begin, chunk[begin:end])

    def _refuse_when_nearly_full(self, file: DataFile) -> None:
        fd, _ = file.place(0)
        found = os.fstatvfs(fd)
        free = found.f_bavail * found.f_frsize
        if free < min(_LEAVE_FREE, found.f_blocks * found.f_frsize // _LEAVE_FRACTION):
            raise NoSpaceError(f"the file system of spill-dir has {free >> 20} MiB left")

    async def refuse_when_nearly_full(self) -> None:
        """Raise NoSpaceError if the file system has little room left.

        Raises:
            DeviceError: so it is, or no file can be made at all.
        """
        file = await self.open()
        await run_io(self._refuse_when_nearly_full, file)
