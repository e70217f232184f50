"""Blocks short enough for memory: decoded while they come, served when verified, or before.

Memory has a budget; what falls out of it goes to the spill file. Blocks with the same packed bytes
are decoded once.

Invariants: a block is in memory or the spill file only when its check was verified; a load that is
cancelled has its decoder stopped before its memory counts as free. What is served before is for
`parts` to say.
"""

import contextlib
import functools
import logging
from collections.abc import Callable
from typing import Final

from nbdserve.blockcache import BlockCache, Claim, Weighed
from nbdserve.errors import CorruptDataError, DeviceError
from nbdserve.formats.xz import XzBlock, XzIndex
from nbdserve.threads import run_cpu
from nbdserve.xzengine.held import Held
from nbdserve.xzengine.intake import INTAKE
from nbdserve.xzengine.packed import PackedBlocks
from nbdserve.xzengine.parts import Part, Parts
from nbdserve.xzengine.spill import Spill
from nbdserve.xzengine.turns import Turns
from nbdserve.xzengine.twins import Twins, digest_of
from nbdserve.xzengine.unpacking import MemorySink, Unpacking
from nbdserve.xzengine.zeroruns import SHORTEST, ZeroRuns

__all__ = ["ShortBlocks"]

log = logging.getLogger(__name__)

_LOADS = 8  # fetches and decodes under way; the budget allows fewer of large blocks


_NOT_IN_MEMORY: Final = Held(None)


class ShortBlocks:
    """Loads short blocks and keeps them.

    Args:
        index: where the blocks are.
        packed: where their bytes come from.
        twins: which of them may be the same.
        spill: where data goes that memory has no room for.
        zeroes: what is learnt of zeroes.
        turns: at the cores.
        budget: bytes of memory for decoded blocks, and for those being decoded.
        memlimit: bytes one decoder may use besides.
        early: whether a part of a block may be served before the check of all of it.
        on_corrupt: called with a block's number and why it is corrupt.
    """

    def __init__(
        self,
        index: XzIndex,
        packed: PackedBlocks,
        twins: Twins,
        spill: Spill,
        zeroes: ZeroRuns,
        turns: Turns,
        *,
        budget: int,
        memlimit: int,
        early: bool,
        on_corrupt: Callable[[int, CorruptDataError], None],
    ) -> None:
        self._index = index
        self._packed = packed
        self._twins = twins
        self._spill = spill
        self._zeroes = zeroes
        self._turns = turns
        self._memlimit = memlimit
        self._on_corrupt = on_corrupt
        self.memory: BlockCache[int, Held] = BlockCache(
            budget, loads=_LOADS, evicted=self._move_out
        )
        """The blocks in memory, and the loads under way."""
        self.parts = Parts(self.memory, early=early)
        """What may be served of the blocks that are being decoded."""
        self._zero = bytearray(index.blocks)  # 1 if it is known to hold zeroes only
        self._empty_shapes: set[tuple[int, int]] = set()  # sizes of blocks found to be zeroes
        self.decoded = 0
        """Blocks decoded so far."""
        self.duplicates = 0
        """Blocks found to be the same as one that was decoded before, so far."""

    def is_zero(self, number: int) -> bool:
        """Tell whether a block is known to hold zeroes only."""
        return self._zero[number] == 1

    def held(self, number: int) -> Held | None:
        """Return a block's data if it is in memory."""
        held = self.memory.get_nowait(number)
        if held is not None and held.data is not None:
            return held
        moving = self._spill.moving(number)
        return None if moving is None else Held(moving)

    def claim(self, number: int) -> Claim[int, Held]:
        """Claim the load of a block that is not there, begun now or before."""
        return self.memory.join(number) or self.memory.start(
            (number,), functools.partial(self._load, number), self.cost(number)
        )

    def start_ahead(self, number: int, *, spare: Callable[[int], bool]) -> bool:
        """Begin a load nobody asked for, if there is room for it; see `BlockCache.start_ahead`."""
        load = functools.partial(self._load, number)
        return self.memory.start_ahead((number,), load, self.cost(number), spare=spare)

    def cost(self, number: int) -> int:
        """Memory in bytes that loading a block takes: what it becomes, and what lies before it."""
        packed = self._index.unpadded[number]
        block = self._index.block(number)
        if not self._twins.may_have_one(block):
            packed = min(packed, INTAKE)
        elif (block.unpadded_size, block.size) in self._empty_shapes:
            return packed  # the same zeroes, almost for certain
        return packed + block.size

    async def is_empty(self, block: XzBlock) -> bool:
        """Tell whether a block is the same as one known to hold zeroes only.

        Raises:
            DeviceError: its bytes cannot be had.
        """
        if not self._twins.may_have_one(block):
            return False
        digest = await run_cpu(digest_of, block, await self._packed.whole(block))
        if not self._zero[self._twins.known(digest, block.number)]:
            return False
        self._zero[block.number] = 1
        self.duplicates += 1
        return True

    def comes_alone(self, number: int) -> bool:
        """Tell whether a block's bytes are fetched for it alone, and decoded whatever they are."""
        twin = self._twins.may_have_one(self._index.block(number))
        return not (twin or self._packed.comes_with_others(number))

    def may_be_the_same(self, block: XzBlock) -> bool:
        """Tell whether another block may have the same bytes."""
        return self._twins.may_have_one(block)

    def _move_out(self, number: int, held: Held) -> None:
        if held.data is not None:
            self._spill.move(number, held.data)

    async def _load(self, number: int) -> tuple[Weighed[Held]]:
        block = self._index.block(number)
        part = self.parts.begin(block)
        try:
            return (await self._decode(block, part),)
        except CorruptDataError as exc:
            self._on_corrupt(number, exc)
            _tell_of(exc, self.parts.fail(part))
            raise
        finally:
            self.parts.end(part)

    async def _decode(self, block: XzBlock, part: Part) -> Weighed[Held]:
        if self.comes_alone(block.number):
            return await self._unpack_stream(block, part)
        packed = await self._packed.whole(block)
        await self._spill.settle()
        if not self._twins.may_have_one(block):
            return await self._unpack(block, packed, part.sink)
        digest = await run_cpu(digest_of, block, packed)
        while (first := self._twins.first_with(digest, block.number)) != block.number:
            same = await self._same_as(block.number, first)
            if same is not None:
                self.duplicates += 1
                return same
            self._twins.withdraw(digest, first)
        try:
            return await self._unpack(block, packed, part.sink)
        except BaseException:
            self._twins.withdraw(digest, block.number)
            raise

    async def _same_as(self, number: int, first: int) -> Weighed[Held] | None:
        """Take a block's data from the one that has the same bytes; None if it cannot be had."""
        claim = self.memory.join_running(first)
        if claim is not None:
            with claim, contextlib.suppress(DeviceError):
                await claim.wait(first)
        if self._zero[first]:
            self._zero[number] = 1
            return Weighed(_NOT_IN_MEMORY, 0)
        if self._spill.holds(first):
            self._spill.alias(number, first)
            return Weighed(_NOT_IN_MEMORY, 0)
        held = self.held(first)
        if held is None or held.data is None:
            return None
        return Weighed(held, len(held.data))

    async def _unpack_stream(self, block: XzBlock, part: Part) -> Weighed[Held]:
        unpacking = Unpacking(block, part.sink, memlimit=self._memlimit)
        async with self._packed.intake(block) as intake:
            await self._spill.settle()  # while the first bytes are on their way
            while not unpacking.verified:
                if unpacking.is_hungry:
                    unpacking.give(await intake.take())
                await self._step(unpacking)
                self.parts.publish(part, unpacking)
        return self._keep(unpacking, part.sink)

    async def _unpack(self, block: XzBlock, packed: memoryview, sink: MemorySink) -> Weighed[Held]:
        unpacking = Unpacking(block, sink, memlimit=self._memlimit)
        unpacking.give((packed,))
        while not unpacking.verified:
            await self._step(unpacking)
        return self._keep(unpacking, sink)

    async def _step(self, unpacking: Unpacking) -> None:
        urgent = functools.partial(self.memory.is_awaited, unpacking.block.number)
        await self._turns.run(unpacking.step, urgent=urgent)

    def _keep(self, unpacking: Unpacking, sink: MemorySink) -> Weighed[Held]:
        number = unpacking.block.number
        self.decoded += 1
        if sink.data is None:
            self._zero[number] = 1
            self._empty_shapes.add((unpacking.block.unpadded_size, unpacking.block.size))
            return Weighed(_NOT_IN_MEMORY, 0)
        if unpacking.block.size >= SHORTEST:
            self._zeroes.forget(number)
            self._zeroes.add(number, unpacking.take_zeroes())
        return Weighed(Held(sink.data), sink.weight)


def _tell_of(exc: CorruptDataError, served: int) -> None:
    if served:
        log.error("%s; %d bytes of it were answered before its check", exc, served)
    else:
        log.warning("%s", exc)
