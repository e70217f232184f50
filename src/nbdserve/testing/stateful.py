"""A device against a bytearray, by rules that Hypothesis combines: what nobody thought to test.

The machine owns an event loop, on which it runs each rule to its end. It draws ranges that begin
and end at the device's boundaries, or a few bytes beside them, since there the mistakes are.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from nbdserve.device import Capability
from nbdserve.errors import NotSupportedError
from nbdserve.ranges import align_down
from nbdserve.testing.checks import (
    at_once,
    cancel_after,
    check_bytes,
    check_extents,
    locatable,
    read_slowly,
)
from nbdserve.testing.model import Model, Range, Subject

__all__ = ["DeviceMachine", "state_machine_for"]

Spot = tuple[int, int]

_SPOTS = st.tuples(st.integers(0, 63), st.integers(-9, 9))
_SEEDS = st.integers(0, 254)
_MARGIN = 64  # bytes looked at beside those that were changed


class DeviceMachine(RuleBasedStateMachine):
    """The rules; `state_machine_for` makes a machine of them for a device."""

    subject: Subject
    model: Model

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._opened = AsyncExitStack()
        self._spots = [0]
        self._can = Capability.NONE

    def start(self, opening: AbstractAsyncContextManager[Subject]) -> None:
        """Open the device under test."""
        self.subject = self._runner.run(self._opened.enter_async_context(opening))
        self.model = self.subject.model()
        self._spots = self.subject.boundaries()
        self._can = self.subject.device.info.can

    def teardown(self) -> None:
        try:
            self._runner.run(self._opened.aclose())
        finally:
            self._runner.close()

    def _place(self, spot: Spot) -> int:
        index, beside = spot
        info = self.subject.device.info
        place = min(max(self._spots[index % len(self._spots)] + beside, 0), info.size)
        return place if place == info.size else align_down(place, info.block_size.minimum)

    def _range(self, one: Spot, other: Spot) -> Range:
        start, end = sorted((self._place(one), self._place(other)))
        return Range(start, end - start)

    async def _check_around(self, part: Range) -> None:
        minimum, size = self.subject.device.info.block_size.minimum, self.subject.device.info.size
        start = align_down(max(part.offset - _MARGIN, 0), minimum)
        end = min(part.end + max(_MARGIN, minimum), size)
        end = end if end == size else align_down(end, minimum)
        await check_bytes(self.subject.device, self.model, Range(start, end - start))

    def _has(self, capability: Capability) -> bool:
        return bool(self._can & capability)

    @rule(one=_SPOTS, other=_SPOTS)
    def read(self, one: Spot, other: Spot) -> None:
        """Read a range."""
        part = self._range(one, other)
        self._runner.run(check_bytes(self.subject.device, self.model, part))

    @rule()
    def read_everything(self) -> None:
        """Read the whole device."""
        whole = Range(0, self.subject.device.info.size)
        self._runner.run(check_bytes(self.subject.device, self.model, whole))

    @rule(one=_SPOTS, other=_SPOTS)
    def extents(self, one: Spot, other: Spot) -> None:
        """Ask for the extents of a range."""
        self._runner.run(check_extents(self.subject.device, self._range(one, other)))

    @rule(one=_SPOTS, other=_SPOTS)
    def cache(self, one: Spot, other: Spot) -> None:
        """Cache a range."""

        async def run() -> None:
            await self.subject.device.cache(*self._range(one, other))

        self._runner.run(run())

    @precondition(lambda self: self._has(Capability.WRITE))
    @rule(one=_SPOTS, other=_SPOTS, seed=_SEEDS, zeroes=st.booleans(), fua=st.booleans())
    def write(self, one: Spot, other: Spot, *, seed: int, zeroes: bool, fua: bool) -> None:
        """Write a range, sometimes with bytes that happen to be zero."""
        part = self._range(one, other)
        data = bytes(part.length) if zeroes else locatable(seed, part.length)

        async def run() -> None:
            fua_here = fua and self._has(Capability.FUA)
            await self.subject.device.write(part.offset, memoryview(data), fua=fua_here)
            self.model.write(part.offset, data)
            await self._check_around(part)

        self._runner.run(run())

    @precondition(lambda self: self._has(Capability.WRITE_ZEROES))
    @rule(one=_SPOTS, other=_SPOTS, may_trim=st.booleans(), fast=st.booleans())
    def write_zeroes(self, one: Spot, other: Spot, *, may_trim: bool, fast: bool) -> None:
        """Zero a range; only fast zeroing may be refused, and then nothing has changed."""
        part = self._range(one, other)
        fast = fast and self._has(Capability.FAST_ZERO)

        async def run() -> None:
            try:
                await self.subject.device.write_zeroes(
                    *part, fua=False, may_trim=may_trim, fast=fast
                )
            except NotSupportedError:
                assert fast, "only fast zeroing may be refused"
            else:
                self.model.zero(*part)
            await self._check_around(part)

        self._runner.run(run())

    @precondition(lambda self: self._has(Capability.TRIM))
    @rule(one=_SPOTS, other=_SPOTS)
    def trim(self, one: Spot, other: Spot) -> None:
        """Trim a range."""
        part = self._range(one, other)

        async def run() -> None:
            await self.subject.device.trim(*part, fua=False)
            self.model.trim(*part)
            await self._check_around(part)

        self._runner.run(run())

    @precondition(lambda self: self._has(Capability.FLUSH))
    @rule()
    def flush(self) -> None:
        """Flush."""
        self._runner.run(self.subject.device.flush())

    @rule(spots=st.lists(_SPOTS, min_size=3, max_size=12), seed=_SEEDS)
    def many_at_once(self, spots: list[Spot], seed: int) -> None:
        """Write, zero and read adjacent ranges at the same time."""
        places = sorted({self._place(spot) for spot in spots})

        async def run() -> None:
            calls: list[Awaitable[object]] = []
            for number, (start, end) in enumerate(pairwise(places)):
                part = Range(start, end - start)
                calls.append(self._one_of_many((number + seed) % 4, part, seed + number))
            await at_once(calls)

        self._runner.run(run())
        self.read_everything()

    async def _one_of_many(self, kind: int, part: Range, seed: int) -> None:
        device = self.subject.device
        if kind <= 1 and self._has(Capability.WRITE):
            data = locatable(seed, part.length)
            await device.write(part.offset, memoryview(data), fua=False)
            self.model.write(part.offset, data)
        elif kind == 2 and self._has(Capability.WRITE_ZEROES):
            await device.write_zeroes(*part, fua=False, may_trim=True, fast=False)
            self.model.zero(*part)
        else:
            await check_bytes(device, self.model, part)

    @rule(one=_SPOTS, other=_SPOTS, turns=st.integers(0, 5))
    def cancel_reads(self, one: Spot, other: Spot, turns: int) -> None:
        """Cancel two reads and a query of extents; a third read of the range goes on."""
        part = self._range(one, other)
        device = self.subject.device

        async def run() -> None:
            calls: list[Awaitable[object]] = [read_slowly(device, part) for _ in range(2)]
            if part.length:
                calls.append(device.extents(*part))
            kept = check_bytes(device, self.model, part)
            await at_once([kept, cancel_after(turns, calls)])
            await check_bytes(device, self.model, part)

        self._runner.run(run())

    @precondition(lambda self: self._has(Capability.WRITE))
    @rule(one=_SPOTS, other=_SPOTS, turns=st.integers(0, 5), seed=_SEEDS)
    def cancel_a_write(self, one: Spot, other: Spot, turns: int, seed: int) -> None:
        """Cancel a write; the range is unknown from then on, everything else unchanged."""
        part = self._range(one, other)
        data = memoryview(locatable(seed, part.length))

        async def run() -> None:
            self.model.lose(*part)
            await cancel_after(turns, [self.subject.device.write(part.offset, data, fua=False)])
            await self._check_around(part)

        self._runner.run(run())


def state_machine_for(
    factory: Callable[..., AbstractAsyncContextManager[Subject]],
    *drawn: st.SearchStrategy[Any],
) -> type[DeviceMachine]:
    """Make the state machine that tests the devices `factory` opens.

    Args:
        factory: called for each example with one value of each strategy; opens a fresh device and
            closes it at the end.
        drawn: what Hypothesis chooses for each example, such as a chain of layers.

    Returns:
        The machine; pytest collects its `TestCase`.
    """

    class Machine(DeviceMachine):
        @initialize(values=st.tuples(*drawn))
        def open(self, values: tuple[Any, ...]) -> None:
            self.start(factory(*values))

    return Machine
