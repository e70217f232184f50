"""Reads of one file that have to wait for the disk: through the ring if there is one, else threads.

The ring takes what is small, where the hop into a thread is dear. What it cannot bring whole, for
an error or the file's end, a thread tries again: that tells what is wrong, for both.
"""

import asyncio
import functools
from collections.abc import Callable
from typing import Final

from nbdserve.device import Done
from nbdserve.sources.readbatch import ReadBatch
from nbdserve.sources.ringreads import RingReads, join_ring, leave_ring

__all__ = ["ColdReads"]

_SMALL: Final = 64 << 10  # bytes; larger ones are mostly copying, which threads do side by side
_MOST: Final = 128  # of one file in the ring: one that does not answer leaves room to others


class ColdReads:
    """The reads of a file that are under way. One event loop.

    Args:
        read: fills all of a buffer, or raises; blocks, and is called in threads.
        prefetch: has the kernel begin to read a range; likewise.
    """

    def __init__(
        self, read: Callable[[int, memoryview], None], prefetch: Callable[[int, int], None]
    ) -> None:
        self._batch = ReadBatch(read, prefetch)
        self._ring: RingReads | None = None
        self._fd = -1
        self._in_ring = 0
        self._idle: asyncio.Event | None = None

    def open(self, fd: int) -> None:
        """Read from this descriptor, which stays open until `close` has returned."""
        self._fd = fd
        self._ring = join_ring()

    async def close(self) -> None:
        """Wait for what is under way in the ring; no harm without `open`, or twice."""
        ring, self._ring = self._ring, None
        if ring is None:
            return
        try:
            while self._in_ring:
                self._idle = asyncio.Event()
                await self._idle.wait()
        finally:
            leave_ring(ring)

    def add(self, offset: int, view: memoryview, done: Done) -> None:
        """Begin to fill all of `view`; `done` is called once on the loop, later."""
        ring = self._ring
        small = 0 < len(view) <= _SMALL
        if ring is None or not small or self._in_ring >= _MOST or not ring.has_room:
            self._batch.add(offset, view, done)
            return
        self._in_ring += 1
        ring.add(self._fd, offset, view, functools.partial(self._ended, offset, view, done))

    async def __call__(self, offset: int, view: memoryview) -> None:
        """Fill all of `view`. Cancelling gives the read up; `view` may still be filled.

        Raises:
            Exception: what the read raised.
        """
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.add(offset, view, functools.partial(_settle, outcome))
        await outcome

    def _ended(self, offset: int, view: memoryview, done: Done, result: int) -> None:
        self._in_ring -= 1
        if result == len(view):
            done(None)
        else:
            self._batch.add(offset, view, done)
        if self._idle is not None and not self._in_ring:
            self._idle.set()


def _settle(outcome: "asyncio.Future[None]", error: Exception | None) -> None:
    if outcome.done():
        return
    if error is None:
        outcome.set_result(None)
    else:
        outcome.set_exception(error)
