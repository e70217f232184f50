"""The packed bytes of an xz file's blocks: each block by one read of the file, as it comes.

Tiny neighbours (the blocks of zeroes of an image) come together by one read, and what came with
them is kept for a while. Others are fetched ahead of a reader in order (`packedahead`).
"""

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from typing import Final

from nbdserve.blockcache import BlockCache, Weighed
from nbdserve.buffers import zeroed_buffer
from nbdserve.device import Device
from nbdserve.formats.xz import XzBlock, XzIndex
from nbdserve.ranges import align_down, align_up
from nbdserve.xzengine.intake import INTAKE, Intake
from nbdserve.xzengine.packedahead import PackedAhead

__all__ = ["PackedBlocks"]

_SMALL = 32 << 10  # packed bytes of a block that is fetched with its neighbours ...
_RUN = 512 << 10  # ... within this much of the file: a round trip of 40 ms at 100 Mbit/s
_KEPT = 4 << 20
_LOADS: Final = 8


class PackedBlocks:
    """Fetches packed blocks.

    Args:
        inner: the file.
        index: where its blocks are.
        ahead: bytes of memory for what is fetched ahead.
    """

    def __init__(self, inner: Device, index: XzIndex, ahead: int) -> None:
        self._inner = inner
        self._index = index
        self._runs: BlockCache[int, memoryview] = BlockCache(_KEPT, loads=_LOADS)
        self._run = range(0)
        self._ahead = PackedAhead(ahead, index.unpadded.__getitem__, self._intake)
        self.fetches = 0
        """Reads of the file so far."""
        self.fetched = 0
        """Bytes of the file read so far."""

    @property
    def streams(self) -> int | None:
        """Blocks that can be on their way at once; None for any number."""
        return self._inner.info.streams

    async def close(self) -> None:
        """End what is under way."""
        await self._ahead.close()
        await self._runs.close()

    def want(self, numbers: Iterable[int], is_passed: Callable[[int], bool]) -> None:
        """Have blocks fetched ahead by and by; see `PackedAhead.want`."""
        self._ahead.want(numbers, is_passed)

    def intake(self, block: XzBlock) -> Intake:
        """Return what brings a block's fetch range, begun already if it was wanted before."""
        number = block.number
        return self._ahead.take(number) or self._ahead.watch(self._intake(number, INTAKE))

    def comes_with_others(self, number: int) -> bool:
        """Tell whether a block is tiny, so that its bytes come with its neighbours'."""
        return self._index.unpadded[number] <= _SMALL

    def discard(self, number: int) -> None:
        """Forget bytes that are kept, since they may be at fault and not the file."""
        self._runs.discard((self._run_of(number).start,))

    async def whole(self, block: XzBlock) -> memoryview:
        """Return all bytes of a block's fetch range."""
        run = self._run_of(block.number)
        if len(run) == 1:
            return await self._read(block.fetch_offset, block.fetch_length)
        begin = self._index.block(run.start).fetch_offset
        last = self._index.block(run.stop - 1)
        length = last.fetch_offset + last.fetch_length - begin

        async def load() -> tuple[Weighed[memoryview]]:
            return (Weighed(await self._read(begin, length), length),)

        packed = await self._runs.get(run.start, load, length)
        at = block.fetch_offset - begin
        return packed[at : at + block.fetch_length]

    async def stream(self, block: XzBlock, at: int = 0) -> AsyncGenerator[bytes | memoryview, None]:
        """Yield a block's fetch range as it comes, from `at` bytes within it on."""
        left = block.fetch_length - at
        if not left:
            return
        begin, end, start = self._aligned(block.fetch_offset + at, left)
        self.fetches += 1
        async with aclosing(self._inner.stream(begin, end - begin)) as pieces:
            async for piece in pieces:
                self.fetched += len(piece)
                skipped = min(start, len(piece))
                start -= skipped
                wanted = memoryview(piece)[skipped : skipped + left]
                left -= len(wanted)
                if len(wanted):
                    yield wanted

    def _intake(self, number: int, limit: int) -> Intake:
        block = self._index.block(number)
        stream, length = self.stream(block), block.fetch_length
        return Intake(stream, length, limit=limit, moved=self._ahead.move_on)

    async def _read(self, offset: int, length: int) -> memoryview:
        begin, end, start = self._aligned(offset, length)
        buffer = zeroed_buffer(end - begin)
        self.fetches += 1
        await self._inner.read_into(begin, buffer)
        self.fetched += end - begin
        return buffer[start : start + length]

    def _aligned(self, offset: int, length: int) -> tuple[int, int, int]:
        """Return where to read from and to, and how much in front is not wanted."""
        unit = self._inner.info.block_size.minimum
        begin = align_down(offset, unit)
        end = min(align_up(offset + length, unit), self._inner.info.size)
        return begin, end, offset - begin

    def _run_of(self, number: int) -> range:
        if number not in self._run:  # looking through a thousand neighbours takes 0.1 ms
            self._run = self._index.neighbours(number, small=_SMALL, window=_RUN)
        return self._run
