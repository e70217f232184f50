"""Warming an export: read through it once, in order, so that what can keep data has it.

A device that can be told to make a range fast is told; else the bytes are read and dropped. What is
known to be zero needs no warming. A range that cannot be read is noted and passed over: a bad block
in the middle should not leave the rest cold; many of them mean that the source is away.

Bounds: a few pieces at once, so that clients' own reads are not pushed aside.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from nbdserve.device import Capability, Device
from nbdserve.errors import DeviceError
from nbdserve.extents import State
from nbdserve.server.arguments import Report

__all__ = ["warm"]

_PIECE: Final = 16 << 20
_WORKERS: Final = 4
_SCRATCH: Final = 1 << 20
_MOST_FAILURES: Final = 16
_REPORT: Final = 0.5  # seconds between two reports


async def warm(device: Device, offset: int, length: int, report: Report) -> Mapping[str, Any]:
    """Warm a range; cancelling stops it.

    Returns:
        bytes: what is warm now; failed: bytes that could not be read; error: the first reason, or
        None; seconds.
    """
    warming = _Warming(device, offset, length)
    begun = time.monotonic()

    async def tell() -> None:
        while True:
            await report({"done": warming.done, "length": length, "failed": warming.failed})
            await asyncio.sleep(_REPORT)

    try:
        async with asyncio.TaskGroup() as group:
            telling = group.create_task(tell())
            workers = [group.create_task(warming.work()) for _ in range(_WORKERS)]
            await asyncio.wait(workers)
            telling.cancel()
    except ExceptionGroup as failed:  # the client went away, or a device broke its contract
        raise failed.exceptions[0] from None
    return {
        "bytes": warming.done,
        "failed": length - warming.done,
        "error": warming.error,
        "seconds": round(time.monotonic() - begun, 3),
    }


class _Warming:
    """One range on its way to being warm.

    Attributes:
        done: bytes that are warm.
        failed: bytes that could not be read.
        error: why not, the first time.
    """

    def __init__(self, device: Device, offset: int, length: int) -> None:
        self._device = device
        self._pieces = _pieces(offset, length)
        self._failures = 0
        self.done = 0
        self.failed = 0
        self.error: str | None = None

    async def work(self) -> None:
        """Take one piece after the other."""
        for offset, length in self._pieces:
            if self._failures >= _MOST_FAILURES:
                return
            try:
                await self._warm(offset, length)
            except OSError as exc:
                self._failures += 1
                self.failed += length
                text = str(exc) if isinstance(exc, DeviceError) else exc.strerror
                self.error = self.error or f"at {offset}: {text}"
            else:
                self.done += length

    async def _warm(self, offset: int, length: int) -> None:
        at = 0
        while at < length:
            for extent in await self._device.extents(offset + at, length - at):
                if not extent.state & State.ZERO:
                    await self._load(offset + at, extent.length)
                at += extent.length

    async def _load(self, offset: int, length: int) -> None:
        if self._device.info.can & Capability.CACHE:
            await self._device.cache(offset, length)
            return
        scratch = memoryview(bytearray(min(length, _SCRATCH)))
        for at in range(0, length, _SCRATCH):
            await self._device.read_into(offset + at, scratch[: min(_SCRATCH, length - at)])


def _pieces(offset: int, length: int) -> Iterator[tuple[int, int]]:
    """Cut a range at multiples of a piece, so that blocks are not begun by two workers."""
    end = offset + length
    while offset < end:
        stop = min(end, (offset // _PIECE + 1) * _PIECE)
        yield offset, stop - offset
        offset = stop
