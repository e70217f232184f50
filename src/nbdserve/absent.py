"""Absent: stands in for the lower part of a chain that cannot be opened, until it can be.

The builder puts it beneath a layer that can serve without its inner (`Layer.survives_inner`): a
cache on disk whose origin is away. Whoever needs more than the layer has makes it try again.

Invariants: one try at a time, and a pause after each that failed, so that a dead origin costs its
readers a quick error and not a wait each; nothing is ever answered but what the lower part said.
What arrives may not be what the layer knew (the file may have been replaced meanwhile): the layer
takes it from `arrive` and compares its identity before it lets the two mix.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final, Protocol

from nbdserve.device import Capability, Device, DeviceInfo, FileRange
from nbdserve.errors import NbdserveError, SourceUnavailableError
from nbdserve.extents import Extent

__all__ = ["Absent", "Lower", "longest_pause"]

log = logging.getLogger(__name__)

_SHORTEST: Final = 1.0
_LONGEST: Final = 30.0


class Lower(Protocol):
    """The lower part of a chain, opened."""

    @property
    def outermost(self) -> Device:
        """The device the layer above is to stand on."""

    async def close(self) -> None:
        """Close it all."""


class Absent(Device):
    """A lower part that is not there yet; read-only.

    Every operation but `info` tries to open it if it is time to, waits for that, and is passed on.

    Args:
        reopen: opens the lower part anew; called in a task of this device, one at a time.
        cause: why it could not be opened the first time.
        clock: tells the time in seconds.
    """

    def __init__(
        self,
        reopen: Callable[[], Coroutine[Any, Any, Lower]],
        cause: SourceUnavailableError,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reopen = reopen
        self._clock = clock
        self._lower: Lower | None = None
        self._trying: asyncio.Task[None] | None = None
        self._cause = str(cause)
        self._failed = 0
        self._next = 0.0
        self._put_off()

    @property
    def arrived(self) -> Device | None:
        """The device that this one stands in for, once it could be opened; it stays so."""
        return None if self._lower is None else self._lower.outermost

    async def arrive(self) -> Device:
        """Return the device that this one stands in for, opening it if it is time to try again.

        Overlapping calls wait for the same try, which a cancelled one does not end.

        Raises:
            SourceUnavailableError: it could not be opened, now or a moment ago.
        """
        if self._lower is None and self._trying is None and self._clock() >= self._next:
            self._trying = asyncio.get_running_loop().create_task(self._try())
        if (trying := self._trying) is not None:
            await asyncio.wait((trying,))
            if not trying.cancelled():
                trying.result()
        return self._present()

    async def close(self) -> None:
        if self._trying is not None:
            self._trying.cancel()
            await asyncio.wait((self._trying,))
        if self._lower is not None:
            await self._lower.close()

    @property
    def info(self) -> DeviceInfo:
        """What has arrived, as it says, but for writes.

        Raises:
            SourceUnavailableError: nothing has.
        """
        found = self._present().info
        return replace(found, can=found.can & ~Capability.WRITES)

    @property
    def identity(self) -> str | None:
        return None if self.arrived is None else self.arrived.identity

    async def read_into(self, offset: int, view: memoryview) -> None:
        await (await self.arrive()).read_into(offset, view)

    def read_into_nowait(self, offset: int, view: memoryview) -> bool:
        return self.arrived is not None and self.arrived.read_into_nowait(offset, view)

    async def stream(self, offset: int, length: int) -> AsyncGenerator[bytes | memoryview, None]:
        device = await self.arrive()
        async with aclosing(device.stream(offset, length)) as pieces:
            async for piece in pieces:
                yield piece

    def file_range(self, offset: int, length: int) -> FileRange | None:
        return None if self.arrived is None else self.arrived.file_range(offset, length)

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        return await (await self.arrive()).extents(offset, length)

    async def cache(self, offset: int, length: int) -> None:
        await (await self.arrive()).cache(offset, length)

    def _present(self) -> Device:
        if self._lower is not None:
            return self._lower.outermost
        wait = max(0.0, self._next - self._clock())
        raise SourceUnavailableError(f"{self._cause} (not tried again for {wait:.0f} s)")

    async def _try(self) -> None:
        try:
            self._lower = await self._reopen()
            log.info("origin is back after failed=%d, the last: %s", self._failed, self._cause)
        except (NbdserveError, OSError) as exc:
            self._cause = str(exc)
            log.debug("origin is still away failed=%d: %s", self._failed, exc)
        finally:
            self._trying = None
            if self._lower is None:
                self._put_off()

    def _put_off(self) -> None:
        self._failed += 1
        pause = random.uniform(_SHORTEST, longest_pause(self._failed))  # noqa: S311 -- no secret
        self._next = self._clock() + pause


def longest_pause(failed: int) -> float:
    """Return the longest pause in seconds after the try that failed as number `failed` (from 1).

    The pause is drawn from a second up to here, so that the chains of many hosts do not come back
    to an origin all at once.
    """
    return min(_LONGEST, _SHORTEST * 2.0 ** min(failed, 16))
