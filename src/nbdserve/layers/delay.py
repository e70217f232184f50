"""delay: make operations take longer, to try clients and layers against a slow device.

Each operation waits, then is passed on; waiting operations do not hold up one another, as on a
network with latency.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from nbdserve.device import Device, FileRange, Passthrough
from nbdserve.extents import Extent
from nbdserve.params import DURATION, param

__all__ = ["DelayLayer", "DelayParams"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayParams:
    """How long each kind of operation waits, in seconds."""

    read: float = param(DURATION, default=0.0, help="wait before each read")
    write: float = param(DURATION, default=0.0, help="wait before each write")
    zero: float = param(DURATION, default=0.0, help="wait before each write of zeroes")
    trim: float = param(DURATION, default=0.0, help="wait before each trim")
    extents: float = param(DURATION, default=0.0, help="wait before each query of extents")
    cache: float = param(DURATION, default=0.0, help="wait before each cache request")
    flush: float = param(DURATION, default=0.0, help="wait before each flush")
    open: float = param(DURATION, default=0.0, help="wait when the export is opened")
    close: float = param(DURATION, default=0.0, help="wait when the export is closed")


class DelayLayer(Passthrough):
    """Delay requests by a fixed time for each kind.

    Use it to see how a client, a guest or another layer behaves over a slow network or disk.
    Requests wait side by side: it adds latency and takes no bandwidth. While reads are delayed,
    none of them is answered from memory at once or sent without a copy.

        nbdserve --layer delay:read=20ms,write=50ms file disk.img
    """

    Params = DelayParams

    def __init__(self, inner: Device, params: DelayParams) -> None:
        super().__init__(inner)
        self._params = params

    async def open(self, *, read_only: bool) -> None:
        await _wait(self._params.open)

    async def close(self) -> None:
        await _wait(self._params.close)

    async def read_into(self, offset: int, view: memoryview) -> None:
        await _wait(self._params.read)
        await self.inner.read_into(offset, view)

    def read_into_nowait(self, offset: int, view: memoryview) -> bool:
        return not self._params.read and self.inner.read_into_nowait(offset, view)

    async def stream(self, offset: int, length: int) -> AsyncGenerator[bytes | memoryview, None]:
        await _wait(self._params.read)
        async with aclosing(self.inner.stream(offset, length)) as pieces:
            async for piece in pieces:
                yield piece

    def file_range(self, offset: int, length: int) -> FileRange | None:
        return None if self._params.read else self.inner.file_range(offset, length)

    async def write(self, offset: int, data: memoryview, *, fua: bool) -> None:
        await _wait(self._params.write)
        await self.inner.write(offset, data, fua=fua)

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool, may_trim: bool, fast: bool
    ) -> None:
        await _wait(self._params.zero)
        await self.inner.write_zeroes(offset, length, fua=fua, may_trim=may_trim, fast=fast)

    async def trim(self, offset: int, length: int, *, fua: bool) -> None:
        await _wait(self._params.trim)
        await self.inner.trim(offset, length, fua=fua)

    async def flush(self) -> None:
        await _wait(self._params.flush)
        await self.inner.flush()

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        await _wait(self._params.extents)
        return await self.inner.extents(offset, length)

    async def cache(self, offset: int, length: int) -> None:
        await _wait(self._params.cache)
        await self.inner.cache(offset, length)


async def _wait(seconds: float) -> None:
    if seconds:
        await asyncio.sleep(seconds)
