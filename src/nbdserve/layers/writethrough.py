"""Writes through a layer that keeps what it read.

Invariants: a write that has begun runs to its end, whoever still waits for it, for only its end
tells when what was kept is certainly stale; what it touched is forgotten then, before the writer is
told. So once a write is answered, no read that begins then gets what was there before.
"""

import abc
import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any

from nbdserve.device import Device, Layer

__all__ = ["WriteThrough"]


class WriteThrough(Layer):
    """A layer whose writes go to the device beneath; a subclass keeps what it reads there."""

    def __init__(self, inner: Device) -> None:
        super().__init__(inner)
        self._writing: set[asyncio.Task[None]] = set()

    @abc.abstractmethod
    def _forget(self, offset: int, length: int) -> None:
        """Drop whatever is kept, or on its way to be, of a range of bytes."""

    async def write(self, offset: int, data: memoryview, *, fua: bool) -> None:
        await self._carry(offset, len(data), self.inner.write(offset, data, fua=fua))

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool, may_trim: bool, fast: bool
    ) -> None:
        zero = self.inner.write_zeroes(offset, length, fua=fua, may_trim=may_trim, fast=fast)
        await self._carry(offset, length, zero)

    async def trim(self, offset: int, length: int, *, fua: bool) -> None:
        await self._carry(offset, length, self.inner.trim(offset, length, fua=fua))

    async def close(self) -> None:
        """Wait for the writes that nobody waits for any more."""
        if self._writing:
            await asyncio.wait(self._writing)

    async def _carry(self, offset: int, length: int, change: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(change)
        self._writing.add(task)
        task.add_done_callback(partial(self._written, offset, length))
        await asyncio.wait((task,))
        task.result()

    def _written(self, offset: int, length: int, task: asyncio.Task[None]) -> None:
        self._writing.discard(task)
        # after the write, not before it: a read that began meanwhile may have seen either
        self._forget(offset, length)
        if not task.cancelled():
            task.exception()  # told to the writer; if that was cancelled, to nobody
