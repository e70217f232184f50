"""stats: count what passes, and how long it takes.

A read answered at once is counted where it is answered; one that has to wait is counted once, by
`read_into`. A range lent for a zero-copy send is counted as `file_range`: its bytes leave without
passing here, so no duration of a send is known.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing
from time import perf_counter_ns
from typing import TypeVar

from nbdserve.device import Device, FileRange, NoParams, Passthrough
from nbdserve.extents import Extent
from nbdserve.stats import Counters, OperationSnapshot

__all__ = ["StatsLayer"]

log = logging.getLogger(__name__)

T = TypeVar("T")

_OPERATIONS = ("read", "file_range", "write", "zero", "trim", "flush", "extents", "cache")


class StatsLayer(Passthrough):
    """Count requests, bytes, errors and latencies by operation.

    Use it to see what a client asks of the device beneath; above and beneath another layer it
    shows what that layer saves. When the export is closed, one line is logged for each operation
    that was used: its count, errors, bytes, mean duration and the durations that 50 % and 99 %
    of the requests stayed below (to within a factor of two).

        nbdserve --layer stats --layer cache:size=64M --layer stats file disk.img
    """

    def __init__(self, inner: Device, params: NoParams) -> None:
        super().__init__(inner)
        self._counters = Counters(_OPERATIONS)
        self._read = self._counters["read"]

    def snapshot(self) -> dict[str, OperationSnapshot]:
        """Return the counts so far, by operation."""
        return self._counters.snapshot()

    async def close(self) -> None:
        for name, counted in self.snapshot().items():
            if counted.count:
                log.info(
                    "operation=%s count=%d errors=%d bytes=%d mean=%.6fs p50=%.6fs p99=%.6fs",
                    name,
                    counted.count,
                    counted.errors,
                    counted.bytes,
                    counted.mean,
                    counted.percentile(0.5),
                    counted.percentile(0.99),
                )

    async def _count(self, operation: str, length: int, call: Awaitable[T]) -> T:
        """Await a call and count it; one that is cancelled neither failed nor succeeded."""
        counters = self._counters[operation]
        begun = perf_counter_ns()
        try:
            result = await call
        except asyncio.CancelledError:
            raise
        except Exception:
            counters.failed(perf_counter_ns() - begun)
            raise
        counters.succeeded(perf_counter_ns() - begun, length)
        return result

    async def read_into(self, offset: int, view: memoryview) -> None:
        await self._count("read", len(view), self.inner.read_into(offset, view))

    def read_into_nowait(self, offset: int, view: memoryview) -> bool:
        begun = perf_counter_ns()
        if not self.inner.read_into_nowait(offset, view):
            return False
        self._read.succeeded(perf_counter_ns() - begun, len(view))
        return True

    async def stream(self, offset: int, length: int) -> AsyncGenerator[bytes | memoryview, None]:
        begun, done = perf_counter_ns(), 0
        try:
            async with aclosing(self.inner.stream(offset, length)) as pieces:
                async for piece in pieces:
                    done += len(piece)
                    yield piece
        except asyncio.CancelledError:
            raise
        except Exception:
            self._read.failed(perf_counter_ns() - begun)
            raise
        except GeneratorExit:  # the reader had enough
            self._read.succeeded(perf_counter_ns() - begun, done)
            raise
        self._read.succeeded(perf_counter_ns() - begun, done)

    def file_range(self, offset: int, length: int) -> FileRange | None:
        begun = perf_counter_ns()
        found = self.inner.file_range(offset, length)
        if found is not None:
            self._counters["file_range"].succeeded(perf_counter_ns() - begun, length)
        return found

    async def write(self, offset: int, data: memoryview, *, fua: bool) -> None:
        await self._count("write", len(data), self.inner.write(offset, data, fua=fua))

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool, may_trim: bool, fast: bool
    ) -> None:
        call = self.inner.write_zeroes(offset, length, fua=fua, may_trim=may_trim, fast=fast)
        await self._count("zero", length, call)

    async def trim(self, offset: int, length: int, *, fua: bool) -> None:
        await self._count("trim", length, self.inner.trim(offset, length, fua=fua))

    async def flush(self) -> None:
        await self._count("flush", 0, self.inner.flush())

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        return await self._count("extents", length, self.inner.extents(offset, length))

    async def cache(self, offset: int, length: int) -> None:
        await self._count("cache", length, self.inner.cache(offset, length))
