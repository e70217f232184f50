"""The decoded blocks of one xz file: fetched once, decoded once, kept for all readers.

What the `xz` layer serves from; it knows blocks and not requests. A short block is decoded in
memory and served when it is verified (`shortblocks`), or in parts before (`parts`); a long one is
decoded into the spill file and served as far as it has come (`longblocks`). A reader that asks for
block after block gets the next ones loaded ahead, as long as a core would be idle otherwise, and
the packed bytes of those after them, as long as the link would (`packedahead`).

Invariants: what is loaded ahead never exceeds a third of the budget, and nothing that was loaded
before is loaded ahead again (four readers each going through their part of an image would else
fetch the beginning of the next part twice).

A failure of the source is never remembered; that a block is corrupt is (`corrupt`).
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from nbdserve.blockcache import Claim
from nbdserve.buffers import fill_zeroes
from nbdserve.device import Device, FileRange
from nbdserve.errors import CorruptDataError, DeviceError, NoSpaceError
from nbdserve.extents import DATA, ZERO_HOLE, Extent
from nbdserve.formats.xz import XzBlock, XzIndex
from nbdserve.ranges import Piece
from nbdserve.threads import run_cpu
from nbdserve.xzengine.corrupt import CorruptBlocks
from nbdserve.xzengine.held import Held
from nbdserve.xzengine.longblocks import LongBlocks, Wait
from nbdserve.xzengine.order import Order
from nbdserve.xzengine.packed import PackedBlocks
from nbdserve.xzengine.shortblocks import ShortBlocks
from nbdserve.xzengine.spill import Spill
from nbdserve.xzengine.turns import Turns
from nbdserve.xzengine.twins import Twins
from nbdserve.xzengine.zeroruns import ZeroRuns

__all__ = ["Need", "XzBlocks", "leave"]

log = logging.getLogger(__name__)

_THIN = 1024  # a block packed so many times smaller may well be nothing but zeroes
_THIN_AT_LEAST = 64  # packed bytes: header, check and a few bytes of LZMA2
_MOST_IN_MEMORY: Final = 1 << 30
_IN_ORDER: Final = 2  # blocks asked for before one, for its reader to be taken to go on
_NEAR: Final = 1 << 20  # bytes from its beginning where a reader in order enters a block ...
_NEAR_SHARE: Final = 4  # ... or this part of a large one: four connections overtake each other
_PACKED_AHEAD: Final = 8  # blocks fetched ahead at most ...
_PACKED_SHARE: Final = 10  # ... and the part of the budget for their bytes: 0.7 s at 100 Mbit/s
_LOOKS: Final = 8  # blocks looked at together


Need = Claim[int, Held] | Wait | Held | None
"""What a piece of a block waits for: a load, a long block, nothing (held), or only the disk."""


class XzBlocks:
    """The blocks of an xz file, decoded on demand. Make it with `open`.

    Args:
        inner: the file.
        index: where its blocks are.
        twins: which of them may be the same.
        spill: where data goes that memory has no room for.
        budget: bytes of memory for decoded blocks, and for those being decoded.
        memlimit: bytes one decoder may use besides.
        early: bytes of a block over which it is served as it comes (`longblocks`).
        parts: whether others may be served in parts before they are verified (`parts`).
    """

    def __init__(
        self,
        inner: Device,
        index: XzIndex,
        twins: Twins,
        spill: Spill,
        *,
        budget: int,
        memlimit: int,
        early: int,
        parts: bool,
    ) -> None:
        self._index = index
        self._spill = spill
        self._budget = budget
        self._early = early
        self._cores = os.cpu_count() or 1
        self._packed = PackedBlocks(inner, index, budget // _PACKED_SHARE)
        self._zeroes = ZeroRuns()
        turns = Turns(self._cores)
        self._short = ShortBlocks(
            index, self._packed, twins, spill, self._zeroes, turns,
            budget=budget, memlimit=memlimit, early=parts, on_corrupt=self._found_bad,
        )  # fmt: skip
        self._long = LongBlocks(
            index, self._packed, spill, self._zeroes, turns,
            memlimit=memlimit, may_begin=self._is_new_and_long, on_end=self._long_ended,
        )  # fmt: skip
        self._loaded = bytearray(index.blocks)  # 1 if a load of it was ever begun
        self._ahead: set[int] = set()  # loaded before anybody asked, and not asked for yet
        self._order = Order(index.blocks, self._is_empty)
        self._corrupt = CorruptBlocks()
        self._long_decoded = 0

    @classmethod
    async def open(
        cls,
        inner: Device,
        index: XzIndex,
        spill: Spill,
        *,
        budget: int,
        memlimit: int,
        early: int,
        parts: bool,
    ) -> "XzBlocks":
        """Make the blocks of a file; ends with `close`."""
        twins = await run_cpu(Twins, index)
        return cls(
            inner, index, twins, spill,
            budget=budget, memlimit=memlimit, early=early, parts=parts,
        )  # fmt: skip

    async def close(self) -> None:
        """End all loads and drop all blocks."""
        await self._short.memory.close()
        await self._long.close()
        await self._packed.close()
        await self._spill.close()

    def status(self) -> Mapping[str, int]:
        """Tell what was done so far, in blocks and bytes."""
        return {
            "blocks": self._index.blocks,
            "blocks_decoded": self._short.decoded + self._long_decoded,
            "blocks_same_as_another": self._short.duplicates,
            "packed_reads": self._packed.fetches,
            "packed_bytes": self._packed.fetched,
            "memory_bytes": self._short.memory.weight,
            "spilled_bytes": self._spill.used,
        }

    # Reading

    def fill_nowait(self, piece: Piece, view: memoryview) -> bool:
        """Fill `view` with a piece of a block if it is at hand.

        The first reader of a block that was loaded ahead is sent to `claim`, which moves on.
        """
        number, start, length, _ = piece
        held = self._short.held(number)
        if held is not None and held.data is not None:
            if number in self._ahead:
                return False
            view[:] = held.data[start : start + length]
            return True
        if self._short.is_zero(number):
            fill_zeroes(view)
            return True
        return self._is_spilled(piece) and self._spill.read_nowait(self._place(piece), view)

    def claim(self, piece: Piece) -> Need:
        """Ask for what a piece of a block takes; whoever has it must `leave` it.

        Raises:
            CorruptDataError: the block was found to be corrupt a moment ago.
        """
        found = self._claim_alone(piece)
        self._ahead.discard(piece.unit)
        self._load_ahead(piece)
        return found

    def _claim_alone(self, piece: Piece) -> Need:
        """Ask for what a piece takes, as a reader or not; see `claim`."""
        number = piece.unit
        found: Need = self._short.held(number)
        if found is None and not self._short.is_zero(number) and not self._is_spilled(piece):
            self._corrupt.refuse(number)
            self._refuse_too_large(number)
            self._loaded[number] = 1
            if self._is_long(number):
                found = self._long.claim(number, piece.start + piece.length)
            else:
                found = self._short.claim(number)
        return found

    async def fill(self, piece: Piece, view: memoryview, need: Need) -> None:
        """Fill `view` with a piece of a block, when what was claimed is there.

        Raises:
            DeviceError: it cannot be fetched or decoded.
        """
        held = await self.arrival(piece, need)
        if held is not None and held.data is not None:
            view[:] = held.data[piece.start : piece.start + piece.length]
        elif self._short.is_zero(piece.unit):
            fill_zeroes(view)
        else:
            if not self._is_spilled(piece):
                self._corrupt.refuse(piece.unit)  # it was found to be so since
            if not self._spill.read_nowait(self._place(piece), view):
                await self._spill.read(self._place(piece), view)

    async def arrival(self, piece: Piece, need: Need) -> Held | None:
        """Wait until what a piece needs is there: in memory if it is returned, else elsewhere.

        Raises:
            DeviceError: it cannot be fetched or decoded.
        """
        if isinstance(need, Claim):
            return await self._short.parts.arrival(piece, need)
        if isinstance(need, Wait):
            try:
                await need.wait()
            except NoSpaceError:
                if self._spill.has_room:  # the source's own
                    raise
                return await self._arrival_in_memory(piece)
            return None
        return need

    async def _arrival_in_memory(self, piece: Piece) -> Held | None:
        """Have a block that the disk has no room for any more decoded in memory."""
        need = self.claim(piece)
        try:
            if isinstance(need, Wait):  # another reader's, which goes on as long as it can
                await need.wait()
                return None
            return await self.arrival(piece, need)
        finally:
            leave(need)

    def file_range(self, piece: Piece) -> FileRange | None:
        """Tell where a piece lies in the spill file, if all of it does."""
        return self._spill.file_range(self._place(piece)) if self._is_spilled(piece) else None

    def extents(self, piece: Piece) -> Iterator[Extent]:
        """Describe a piece as far as its block is known; data where it is not."""
        number = piece.unit
        if self._short.is_zero(number):
            yield Extent(piece.length, ZERO_HOLE)
            return
        start = self._index.starts[number] + piece.start
        known = piece.length
        if self._short.held(number) is None and not self._spill.holds(number):
            known = max(0, min(known, self._long.available(number) - piece.start))
        yield from self._zeroes.extents(number, start, start + known)
        yield Extent(piece.length - known, DATA)

    async def look_at(self, numbers: Iterable[int]) -> None:
        """Find out of blocks whether they are all zeroes, where one is so thin that it may well be.

        Costs nothing for other blocks, and one that is too large for an answer to wait for it is
        left alone. What fails here is left to who reads the block.
        """
        thin = [number for number in numbers if self._may_be_empty(number)]
        waiting = iter(thin)

        async def look() -> None:
            for number in waiting:
                await self._look_at(number)

        try:
            async with asyncio.TaskGroup() as group:  # a round trip for each would add up
                for _ in thin[:_LOOKS]:
                    group.create_task(look())
        except ExceptionGroup as failed:  # a device broke its contract
            raise failed.exceptions[0] from None

    def _may_be_empty(self, number: int) -> bool:
        if self._loaded[number] or self._short.is_zero(number):
            return False
        return _is_thin(self._index.block(number)) and self._fits_memory(number)

    async def _look_at(self, number: int) -> None:
        if self._may_be_empty(number):  # it was found since, with another one, else
            block = self._index.block(number)
            with contextlib.suppress(DeviceError):
                if not await self._short.is_empty(block):
                    await self._load(Piece(number, 0, block.size, 0))

    async def _load(self, piece: Piece) -> None:
        need = self._claim_alone(piece)
        try:
            await self.arrival(piece, need)
        finally:
            leave(need)

    # Where a block is

    def _is_long(self, number: int) -> bool:
        if number in self._long:
            return True
        if self._index.block_size(number) <= self._early or not self._spill.has_room:
            return False
        # one that may be the same as another and is mostly zeroes is compared first
        block = self._index.block(number)
        may_be_the_same = _is_thin(block) and self._short.may_be_the_same(block)
        return not (may_be_the_same and self._fits_memory(number))

    def _is_new_and_long(self, number: int) -> bool:
        return not self._loaded[number] and self._is_long(number)

    def _refuse_too_large(self, number: int) -> None:
        if not self._fits_memory(number) and not self._is_long(number):
            size = self._index.block_size(number)
            raise DeviceError(
                f"xz block {number} of {size >> 20} MiB has no room on disk to be decoded to;"
                " make room, or name another spill-dir"
            )

    def _fits_memory(self, number: int) -> bool:
        return self._index.block_size(number) <= max(self._budget, _MOST_IN_MEMORY)

    def _is_spilled(self, piece: Piece) -> bool:
        number = piece.unit
        if self._spill.holds(number):
            return True
        return piece.start + piece.length <= self._long.available(number)

    def _place(self, piece: Piece) -> int:
        return self._spill.place_of(piece.unit) + piece.start

    # Loading ahead

    def _load_ahead(self, piece: Piece) -> None:
        """Load what follows a reader in order, at most as many blocks as it has read so."""
        number = piece.unit
        near = max(self._index.block_size(number) // _NEAR_SHARE, _NEAR)
        passed = self._order.note(number, at_start=piece.start < near)
        if passed < _IN_ORDER:
            return
        self._decode_ahead(self._order.after(number, self._cores))
        following = self._order.after(number, min(passed - _IN_ORDER, _PACKED_AHEAD))
        self._packed.want(filter(self._may_come_ahead, following), self._is_unexpected)

    def _may_come_ahead(self, number: int) -> bool:
        if self._loaded[number] or self._is_long(number):
            return False
        return self._short.comes_alone(number)

    def _is_unexpected(self, number: int) -> bool:
        return not self._order.is_expected(number, _PACKED_AHEAD)

    def _decode_ahead(self, numbers: Iterable[int]) -> None:
        self._ahead = {ahead for ahead in self._ahead if ahead in self._short.memory}
        room = self._budget // 3 - sum(map(self._short.cost, self._ahead))
        for following in numbers:
            if self._loaded[following] or self._is_long(following):
                continue
            room -= self._short.cost(following)
            if room < 0 or self._short.memory.in_flight >= self._cores:
                return
            if not self._short.start_ahead(following, spare=self._is_passed):
                return
            self._loaded[following] = 1
            self._ahead.add(following)

    def _is_empty(self, number: int) -> bool:
        return self._short.is_zero(number) or self._index.block_size(number) == 0

    def _is_passed(self, number: int) -> bool:
        """Tell whether a block's readers, going in order, are through with it."""
        return number not in self._ahead and self._order.is_passed(number)

    def _found_bad(self, number: int, exc: CorruptDataError) -> None:
        self._corrupt.found(number, exc)
        # its packed bytes may be at fault, not the file: they are fetched anew next time
        self._packed.discard(number)

    def _long_ended(self, number: int, error: CorruptDataError | None) -> None:
        if error is None:
            self._long_decoded += 1
        else:
            self._found_bad(number, error)
            log.warning("%s", error)


def _is_thin(block: XzBlock) -> bool:
    return block.unpadded_size <= max(_THIN_AT_LEAST, block.size // _THIN)


def leave(need: Need) -> None:
    """Give up what was claimed, once, whether it has come or not."""
    if isinstance(need, Claim | Wait):
        need.leave()
