"""From a spec to an opened chain: one chain an export, shared by all its connections.

Chains that begin alike share what they have in common: the lower elements, as far up as they are
equal and nothing writes to them, are opened once and closed with the last chain that stands on
them. So ten guests on one image have one index, one cache of decoded data, and one fetch of each
block.

Invariants: devices are opened inner first and closed outer first; if one cannot be opened, those
beneath it are closed again before the error goes on. A shared part is opened by a task of its own:
who gives up waiting ends it only if nobody else waits, a failure is told to all who do, and the
next one tries anew. A part that is being closed is never handed out, and not opened a second time
before it is closed. Where a layer can serve without what lies beneath and that is not available,
`nbdserve.absent` stands in for it; any other error is one. A layer that has enough of its own is
not kept waiting either: a host that swallows packets is given up for now after some seconds, and
not after all the time that a read of it would be tried again.
"""

import asyncio
import logging
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from nbdserve.absent import Absent
from nbdserve.chainplan import Step, plan, resolve
from nbdserve.device import Device, Layer
from nbdserve.errors import SourceUnavailableError
from nbdserve.spec import ExportSpec

__all__ = ["Chain", "ChainPool", "open_chain", "resolve"]

log = logging.getLogger(__name__)

_PATIENCE: Final = 5.0  # seconds; a connection whose first packet was lost twice is there after 3


@dataclass(eq=False, slots=True)
class _Part:
    """An opened device, and the part it stands on.

    Attributes:
        share: who uses it, if chains share it.
    """

    device: Device
    beneath: "_Part | None"
    share: "_Share | None" = None

    def devices(self) -> Iterator[Device]:
        """Give the devices, the outermost first."""
        yield self.device
        if self.beneath is not None:
            yield from self.beneath.devices()

    async def release(self) -> None:
        """Close the device and release what it stands on, if this was the last use."""
        if self.share is not None:
            await self.share.leave()
        else:
            await self.close()

    async def close(self) -> None:
        """Close the device, and release what it stands on even if that fails."""
        try:
            await self.device.close()
        except Exception:
            log.exception("closing a device failed device=%s", type(self.device).__name__)
        finally:
            if self.beneath is not None:
                await self.beneath.release()


class _Share:
    """A part that several chains use: on its way, open, or being closed.

    Args:
        opening: opens it.
        forget: called when it can be joined no more and is closed.

    Attributes:
        closing: closes it, once its last user has left.
    """

    def __init__(self, opening: asyncio.Task[_Part], forget: Callable[["_Share"], None]) -> None:
        self.closing: asyncio.Task[None] | None = None
        self._opening = opening
        self._forget = forget
        self._users = 0
        opening.add_done_callback(self._opened)

    async def join(self) -> _Part:
        """Wait for the part to be open; who gets it releases it once.

        Raises:
            NbdserveError: it cannot be opened.
        """
        self._users += 1
        try:
            await asyncio.wait((self._opening,))
            return self._opening.result()
        except BaseException:
            await self.leave()
            raise

    async def leave(self) -> None:
        """Stop using it; the last one out closes it, to the end whatever becomes of the caller."""
        self._users -= 1
        if self._users == 0:
            self.closing = asyncio.get_running_loop().create_task(self._close())
            await asyncio.wait((self.closing,))

    def _opened(self, opening: asyncio.Task[_Part]) -> None:
        if opening.cancelled() or opening.exception() is not None:
            self._forget(self)
        else:
            opening.result().share = self

    async def _close(self) -> None:
        self._opening.cancel()
        await asyncio.wait((self._opening,))
        if not self._opening.cancelled() and self._opening.exception() is None:
            await self._opening.result().close()
        self._forget(self)


class Chain:
    """An opened chain of devices; `ChainPool.open` makes it."""

    def __init__(self, part: _Part) -> None:
        self._part = part

    @property
    def devices(self) -> tuple[Device, ...]:
        """The source first, the layer nearest the client last; some may be other chains' too."""
        return tuple(self._part.devices())[::-1]

    @property
    def outermost(self) -> Device:
        """The device that requests go to."""
        return self._part.device

    async def close(self) -> None:
        """Close every device that no other chain uses, outer first; called once.

        A failing close never keeps the others open.
        """
        await self._part.release()


class ChainPool:
    """The chains of one process: it knows which parts are open, so that they can be shared.

    One event loop, no threads.

    Args:
        patience: seconds for what lies beneath a layer that can serve without it.
    """

    def __init__(self, *, patience: float = _PATIENCE) -> None:
        self._patience = patience
        self._shares: dict[Hashable, _Share] = {}

    async def open(self, spec: ExportSpec) -> Chain:
        """Build and open the chain a spec describes.

        Raises:
            ConfigError: the spec is wrong as written.
            DeviceError: an element could not be opened; nothing is left open for it.
        """
        return Chain(await self._acquire(plan(spec)))

    async def _acquire(self, steps: Sequence[Step]) -> _Part:
        """Open the last of the steps on top of the others, or join whoever did."""
        if not steps[-1].shared:
            return await self._open(steps)
        key = tuple(step.key for step in steps)
        while (share := self._shares.get(key)) is not None and share.closing is not None:
            await asyncio.wait((share.closing,))
        if share is None:
            opening = asyncio.get_running_loop().create_task(self._open(steps))
            share = self._shares[key] = _Share(opening, partial(self._forget, key))
        return await share.join()

    def _forget(self, key: Hashable, share: _Share) -> None:
        if self._shares.get(key) is share:
            del self._shares[key]

    async def _open(self, steps: Sequence[Step]) -> _Part:
        *lower, step = steps
        if not lower:
            make: Any = step.cls  # Source(params), as device.py says
            source: Device = make(step.params)
            await source.open(read_only=step.read_only)
            return _Part(source, None)
        beneath = await self._beneath(lower, step)
        try:
            layer = _layer(step, beneath.device)
            await layer.open(read_only=step.read_only)
        except BaseException:
            await beneath.release()
            raise
        return _Part(layer, beneath)

    async def _beneath(self, lower: Sequence[Step], step: Step) -> _Part:
        """Open what a layer stands on, or stand something in if the layer can do without it."""
        silent = SourceUnavailableError(f"no answer within {self._patience:g} s")
        absent = Absent(partial(self._reopen, lower), silent)
        layer = _layer(step, absent)
        if not layer.survives_inner:
            return await self._acquire(lower)
        limit = asyncio.timeout(self._patience if await layer.is_ready_alone() else None)
        cause = silent
        try:
            async with limit:
                return await self._acquire(lower)
        except SourceUnavailableError as exc:
            absent, cause = Absent(partial(self._reopen, lower), exc), exc
        except TimeoutError:
            if not limit.expired():
                raise
        log.warning("%s starts without what lies beneath it: %s", step.label, cause)
        return _Part(absent, None)

    async def _reopen(self, steps: Sequence[Step]) -> Chain:
        return Chain(await self._acquire(steps))


def _layer(step: Step, inner: Device) -> Layer:
    make: Any = step.cls  # Layer(inner, params)
    layer: Layer = make(inner, step.params)
    layer.beneath = step.beneath
    return layer


async def open_chain(spec: ExportSpec) -> Chain:
    """Build and open one chain by itself.

    Raises:
        ConfigError: the spec is wrong as written.
        DeviceError: an element could not be opened; nothing is left open.
    """
    return await ChainPool().open(spec)
