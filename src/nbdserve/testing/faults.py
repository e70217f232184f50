"""Scripted devices for tests: one fails or holds calls on demand, one records them.

Both stand anywhere in a chain and change no byte. Nothing here sleeps or draws random numbers: a
test says which call fails, and waits at a `Gate` until the calls it wants in flight are there, so
every interleaving it asks for happens every time. (The `error` and `delay` layers are the
operator's: by rate and duration, to try clients with.)

Invariant: a call that is failed or held has not reached the device beneath.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from nbdserve.device import Device, FileRange, NoParams, Passthrough
from nbdserve.extents import Extent

__all__ = ["Call", "FaultyDevice", "Gate", "Operation", "RecordingDevice"]

Operation = Literal["read", "write", "write_zeroes", "trim", "flush", "extents", "cache"]
"""What a call does. Both ways to read are "read"."""


class Call(NamedTuple):
    """One call a device answered; a flush has offset 0 and length 0."""

    operation: Operation
    offset: int
    length: int


class Gate:
    """Where a `FaultyDevice` holds calls until the test lets them go.

    Not thread-safe: it belongs to one event loop.
    """

    def __init__(self) -> None:
        self._open = False
        self._held: list[asyncio.Future[None]] = []
        self._watchers: list[tuple[int, asyncio.Future[None]]] = []

    @property
    def held(self) -> int:
        """How many calls wait here now."""
        return len(self._held)

    async def waiting(self, count: int = 1) -> None:
        """Wait until at least `count` calls wait here at the same time."""
        if self.held >= count:
            return
        reached = asyncio.get_running_loop().create_future()
        self._watchers.append((count, reached))
        await reached

    def release(self, count: int | None = None) -> None:
        """Let go the `count` calls that came first; without `count` all, and all later ones."""
        if count is None:
            self._open = True
        for held in [call for call in self._held if not call.done()][:count]:
            held.set_result(None)

    async def enter(self) -> None:
        """Wait to be let go; for devices of one's own."""
        if self._open:
            return
        mine = asyncio.get_running_loop().create_future()
        self._held.append(mine)
        for count, reached in self._watchers:
            if self.held >= count and not reached.done():
                reached.set_result(None)
        self._watchers = [watcher for watcher in self._watchers if not watcher[1].done()]
        try:
            await mine
        finally:
            self._held.remove(mine)


@dataclass(slots=True)
class _Rule:
    """Which calls of one operation a script applies to."""

    operation: Operation
    offset: int | None
    error: Exception | None = None
    gate: Gate | None = None
    skip: int = 0
    times: int | None = None
    seen: int = field(default=0, init=False)

    def covers(self, operation: Operation, offset: int, length: int) -> bool:
        if operation != self.operation or self.times == 0:
            return False
        return self.offset is None or offset <= self.offset < offset + length


class FaultyDevice(Passthrough):
    """A layer whose failures and waits are scripted by the test that holds it.

    While a script concerns reads, no read is answered without waiting and none is sent from a
    file, so that each one passes through the script.
    """

    Params = NoParams

    def __init__(self, inner: Device, params: NoParams) -> None:
        super().__init__(inner)
        self._rules: list[_Rule] = []

    def fail(
        self,
        operation: Operation,
        *,
        error: Exception,
        times: int | None = 1,
        offset: int | None = None,
        after: int = 0,
    ) -> None:
        """Make calls fail with `error`.

        Args:
            operation: the calls it concerns.
            error: what they raise.
            times: how many of them fail; None is all of them, until `heal`.
            offset: only calls whose range holds the byte at this offset.
            after: how many such calls succeed first.
        """
        self._rules.append(_Rule(operation, offset, error=error, skip=after, times=times))

    def hold(self, operation: Operation, *, offset: int | None = None) -> Gate:
        """Hold calls from now on, until the gate that is returned is released."""
        gate = Gate()
        self._rules.append(_Rule(operation, offset, gate=gate))
        return gate

    def heal(self) -> None:
        """Forget every script and let go whatever is held."""
        rules, self._rules = self._rules, []
        for rule in rules:
            if rule.gate is not None:
                rule.gate.release()

    async def read_into(self, offset: int, view: memoryview) -> None:
        await self._pass("read", offset, len(view))
        await self.inner.read_into(offset, view)

    def read_into_nowait(self, offset: int, view: memoryview) -> bool:
        if self._concerns_reads():
            return False
        return self.inner.read_into_nowait(offset, view)

    async def stream(self, offset: int, length: int) -> AsyncGenerator[bytes | memoryview, None]:
        await self._pass("read", offset, length)
        async with aclosing(self.inner.stream(offset, length)) as pieces:
            async for piece in pieces:
                yield piece

    def file_range(self, offset: int, length: int) -> FileRange | None:
        return None if self._concerns_reads() else self.inner.file_range(offset, length)

    async def write(self, offset: int, data: memoryview, *, fua: bool) -> None:
        await self._pass("write", offset, len(data))
        await self.inner.write(offset, data, fua=fua)

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool, may_trim: bool, fast: bool
    ) -> None:
        await self._pass("write_zeroes", offset, length)
        await self.inner.write_zeroes(offset, length, fua=fua, may_trim=may_trim, fast=fast)

    async def trim(self, offset: int, length: int, *, fua: bool) -> None:
        await self._pass("trim", offset, length)
        await self.inner.trim(offset, length, fua=fua)

    async def flush(self) -> None:
        await self._pass("flush", 0, 0)
        await self.inner.flush()

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        await self._pass("extents", offset, length)
        return await self.inner.extents(offset, length)

    async def cache(self, offset: int, length: int) -> None:
        await self._pass("cache", offset, length)
        await self.inner.cache(offset, length)

    def _concerns_reads(self) -> bool:
        return any(rule.operation == "read" and rule.times != 0 for rule in self._rules)

    async def _pass(self, operation: Operation, offset: int, length: int) -> None:
        concerned = [rule for rule in self._rules if rule.covers(operation, offset, length)]
        # what a call will meet is settled when it comes in, not in the order gates let calls go
        error = next((found for rule in concerned if (found := _draw(rule)) is not None), None)
        for rule in concerned:
            if rule.gate is not None:
                await rule.gate.enter()
        if error is not None:
            raise error


def _draw(rule: _Rule) -> Exception | None:
    """Count a call against a rule and tell its error, if it is this call's turn."""
    if rule.error is None:
        return None
    rule.seen += 1
    if rule.seen <= rule.skip:
        return None
    if rule.times is not None:
        rule.times -= 1
    return rule.error


class RecordingDevice(Passthrough):
    """A layer that notes every call the device beneath answers or fails, in the order they came.

    A read that could not be answered without waiting is not noted: the read that follows it is.

    Attributes:
        calls: the calls so far; a test may clear it.
    """

    Params = NoParams

    def __init__(self, inner: Device, params: NoParams) -> None:
        super().__init__(inner)
        self.calls: list[Call] = []

    def made(self, operation: Operation) -> list[tuple[int, int]]:
        """List offset and length of the calls of one operation."""
        return [(call.offset, call.length) for call in self.calls if call.operation == operation]

    async def read_into(self, offset: int, view: memoryview) -> None:
        self.calls.append(Call("read", offset, len(view)))
        await self.inner.read_into(offset, view)

    def read_into_nowait(self, offset: int, view: memoryview) -> bool:
        filled = self.inner.read_into_nowait(offset, view)
        if filled:
            self.calls.append(Call("read", offset, len(view)))
        return filled

    def stream(self, offset: int, length: int) -> AsyncGenerator[bytes | memoryview, None]:
        self.calls.append(Call("read", offset, length))
        return self.inner.stream(offset, length)

    def file_range(self, offset: int, length: int) -> FileRange | None:
        return None  # a read by sendfile would go unnoticed

    async def write(self, offset: int, data: memoryview, *, fua: bool) -> None:
        self.calls.append(Call("write", offset, len(data)))
        await self.inner.write(offset, data, fua=fua)

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool, may_trim: bool, fast: bool
    ) -> None:
        self.calls.append(Call("write_zeroes", offset, length))
        await self.inner.write_zeroes(offset, length, fua=fua, may_trim=may_trim, fast=fast)

    async def trim(self, offset: int, length: int, *, fua: bool) -> None:
        self.calls.append(Call("trim", offset, length))
        await self.inner.trim(offset, length, fua=fua)

    async def flush(self) -> None:
        self.calls.append(Call("flush", 0, 0))
        await self.inner.flush()

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        self.calls.append(Call("extents", offset, length))
        return await self.inner.extents(offset, length)

    async def cache(self, offset: int, length: int) -> None:
        self.calls.append(Call("cache", offset, length))
        await self.inner.cache(offset, length)
