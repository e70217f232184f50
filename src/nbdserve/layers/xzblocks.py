"""The decoded blocks of one xz file: fetched once, decoded once, kept by one budget.

What the `xz` layer serves from; it knows blocks and not requests. A block is one load: its exact
bytes (tiny neighbours come together, their packed bytes are kept a while), then its decoding in a
thread a core. A reader that asks for block after block gets the next ones loaded ahead, as long as
a core would be idle otherwise.

Invariants: a block is in the cache only when its check was verified; a load that is cancelled has
its decoder stopped before its memory counts as free; what is loaded ahead never exceeds a third of
the budget, and nothing that was loaded before is loaded ahead again (four readers each going
through their part of an image would else fetch the beginning of the next part twice).

A failure of the source is never remembered. That a block is corrupt is, for a few seconds: a client
that tries every sector of it would else fetch and decode it thousands of times.
"""

import asyncio
import functools
import logging
import os
import threading
from collections import deque
from typing import Final

from nbdserve.blockcache import BlockCache, Claim, Weighed
from nbdserve.buffers import zeroed_buffer
from nbdserve.device import Device
from nbdserve.errors import CorruptDataError
from nbdserve.formats.xz import XzBlock, XzIndex
from nbdserve.formats.xzblock import DecodedBlock, decode_block
from nbdserve.ranges import align_down, align_up
from nbdserve.threads import cpu_pool

__all__ = ["BAD_SECONDS", "XzBlocks"]

log = logging.getLogger(__name__)

BAD_SECONDS: Final = 10.0
"""How long a corrupt block is refused without another look at it."""

_LOADS = 8  # fetches and decodes under way; the budget allows fewer of large blocks
_SMALL = 32 << 10  # packed bytes of a block that is fetched with its neighbours ...
_RUN = 128 << 10  # ... within this much of the file: 10 ms at 100 Mbit/s, less than a round trip
_RUN_CACHE = 4 << 20
_RECENT = 16  # blocks asked for last: enough to recognise four readers going in order
_BAD_KEPT = 1024


class XzBlocks:
    """The blocks of an xz file, decoded on demand.

    Args:
        inner: the file.
        index: where its blocks are.
        budget: bytes of memory for decoded blocks, and for those being fetched and decoded.
        memlimit: bytes one decoder may use besides.
    """

    def __init__(self, inner: Device, index: XzIndex, *, budget: int, memlimit: int) -> None:
        self._inner = inner
        self._index = index
        self._budget = budget
        self._memlimit = memlimit
        self._blocks: BlockCache[int, DecodedBlock] = BlockCache(budget, loads=_LOADS)
        self._runs: BlockCache[int, memoryview] = BlockCache(_RUN_CACHE, loads=_LOADS)
        self._loaded = bytearray(index.blocks)  # 1 if a load of it was ever begun
        self._zero = bytearray(index.blocks)  # 1 if it is known to hold zeroes only
        self._ahead: set[int] = set()  # loaded before anybody asked, and not asked for yet
        self._recent: deque[int] = deque(maxlen=_RECENT)
        self._bad: dict[int, tuple[float, str]] = {}  # until when, and why
        self._cores = os.cpu_count() or 1

    async def close(self) -> None:
        """End all loads and drop all blocks."""
        await self._blocks.close()
        await self._runs.close()

    def is_zero(self, number: int) -> bool:
        """Tell whether a block is known to hold zeroes only."""
        return self._zero[number] == 1

    def get_nowait(self, number: int) -> DecodedBlock | None:
        """Return a block if it is at hand.

        The first reader of a block that was loaded ahead is sent to `demand`, which moves on.
        """
        block = self._blocks.get_nowait(number)
        if block is not None:
            return block if number not in self._ahead else None
        if self._zero[number]:
            return DecodedBlock(None, self._index.block_size(number), 0)
        return None

    def demand(self, number: int) -> DecodedBlock | Claim[int, DecodedBlock]:
        """Return a block if it is at hand, else a claim to wait with; the caller leaves it.

        Raises:
            CorruptDataError: it was found to be corrupt a moment ago.
        """
        self._ahead.discard(number)
        found: DecodedBlock | Claim[int, DecodedBlock] | None = self.get_nowait(number)
        if found is None:
            self._refuse_bad(number)
            self._loaded[number] = 1
            found = self._blocks.join(number) or self._blocks.start(
                (number,), functools.partial(self._load, number), self._cost(number)
            )
        self._load_ahead(number)
        return found

    def _cost(self, number: int) -> int:
        """Memory in bytes that loading a block takes: its packed bytes and what they become."""
        return self._index.unpadded[number] + self._index.block_size(number)

    def _load_ahead(self, number: int) -> None:
        """Load what follows, if the two blocks before were asked for lately as well."""
        in_order = number - 1 in self._recent and number - 2 in self._recent
        if number not in self._recent:
            self._recent.append(number)
        if not in_order:
            return
        self._ahead = {ahead for ahead in self._ahead if ahead in self._blocks}
        room = self._budget // 3 - sum(map(self._cost, self._ahead))
        for following in range(number + 1, min(number + 1 + self._cores, self._index.blocks)):
            if self._loaded[following] or self._index.block_size(following) == 0:
                continue
            cost = self._cost(following)
            room -= cost
            if room < 0 or self._blocks.in_flight >= self._cores:
                return
            load = functools.partial(self._load, following)
            if not self._blocks.start_ahead((following,), load, cost, spare=self._is_passed):
                return
            self._loaded[following] = 1
            self._ahead.add(following)

    def _is_passed(self, number: int) -> bool:
        """Tell whether a block's readers, going in order, are through with it."""
        if number in self._ahead:
            return False
        return number + 1 in self._recent or number not in self._recent

    def _refuse_bad(self, number: int) -> None:
        bad = self._bad.get(number)
        if bad is None:
            return
        until, why = bad
        if asyncio.get_running_loop().time() < until:
            raise CorruptDataError(why)
        del self._bad[number]

    async def _load(self, number: int) -> tuple[Weighed[DecodedBlock]]:
        block = self._index.block(number)
        packed = await self._fetch(block)
        try:
            decoded = await self._decode(block, packed)
        except CorruptDataError as exc:
            if len(self._bad) >= _BAD_KEPT:
                self._bad.clear()
            now = asyncio.get_running_loop().time()
            self._bad[number] = (now + BAD_SECONDS, str(exc))
            # its packed bytes may be at fault, not the file: they are fetched anew next time
            self._runs.discard((self._run_of(block).start,))
            log.warning("%s", exc)
            raise
        if decoded.data is None:
            self._zero[number] = 1
        return (Weighed(decoded, decoded.weight),)

    async def _decode(self, block: XzBlock, packed: memoryview) -> DecodedBlock:
        stop = threading.Event()
        decode = functools.partial(decode_block, block, packed, memlimit=self._memlimit, stop=stop)
        work = asyncio.get_running_loop().run_in_executor(cpu_pool(), decode)
        try:
            await asyncio.wait((work,))
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait((work,))
            work.exception()
            raise
        decoded = work.result()
        assert decoded is not None, "nobody else stops it"
        return decoded

    def _run_of(self, block: XzBlock) -> range:
        return self._index.neighbours(block.number, small=_SMALL, window=_RUN)

    async def _fetch(self, block: XzBlock) -> memoryview:
        """Return the bytes of a block's fetch range, by one read of the file at most."""
        run = self._run_of(block)
        if len(run) == 1:
            return await self._read(block.fetch_offset, block.fetch_length)
        begin = self._index.block(run.start).fetch_offset
        last = self._index.block(run.stop - 1)
        length = last.fetch_offset + last.fetch_length - begin
        load = functools.partial(self._fetch_run, begin, length)
        packed = await self._runs.get(run.start, load, length)
        at = block.fetch_offset - begin
        return packed[at : at + block.fetch_length]

    async def _fetch_run(self, offset: int, length: int) -> tuple[Weighed[memoryview]]:
        packed = await self._read(offset, length)
        return (Weighed(packed, length),)

    async def _read(self, offset: int, length: int) -> memoryview:
        unit = self._inner.info.block_size.minimum
        begin = align_down(offset, unit)
        end = align_up(offset + length, unit)
        buffer = zeroed_buffer(end - begin)
        await self._inner.read_into(begin, buffer)
        return buffer[offset - begin : offset - begin + length]
