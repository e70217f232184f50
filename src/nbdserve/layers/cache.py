"""cache: keep what was read in memory, by bytes, for all connections.

Reads become whole blocks of the cache; a run of neighbouring blocks that are missing is one read
beneath, and many readers of a block wait for one read. Writes go through: what they touch is
dropped from the cache, and read again when it is wanted.

Invariants: once a write is answered, no read that begins then gets what was there before. A block
whose read began before a write ended is not kept and not handed to readers who come later; a write
that is cancelled up here still runs to its end, for only its end tells when that is certain.
"""

import asyncio
import functools
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from nbdserve.blockcache import BlockCache, Claim, Weighed
from nbdserve.buffers import zeroed_buffer
from nbdserve.device import Capability, Device, DeviceInfo, Layer
from nbdserve.errors import ConfigError
from nbdserve.extents import Extent
from nbdserve.params import SIZE, Kind, Value, param
from nbdserve.ranges import align_up, pieces

__all__ = ["CacheLayer", "CacheParams", "runs"]

_LOADS = 16  # reads beneath at once
_RUN = 1 << 20  # bytes of neighbouring blocks brought by one read
_BATCH = 4 << 20  # bytes that one request holds or waits for at once
_SMALLEST, _LARGEST = 512, 32 << 20


def _parse_block(value: Value) -> int:
    size = SIZE.parse(value)
    if size & (size - 1) or not _SMALLEST <= size <= _LARGEST:
        raise ValueError("a power of two from 512 to 32M")
    return size


_BLOCK: Kind[int] = Kind("SIZE", _parse_block, SIZE.show)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheParams:
    """How much is kept, and in which units."""

    size: int = param(SIZE, help="memory to use; the least recently used blocks go first")
    block: int = param(
        _BLOCK, default=64 << 10, help="the unit of caching, a power of two from 512 to 32M"
    )


class CacheLayer(Layer):
    """Keep what was read in memory, so that it is read from below only once.

    Use it above a slow source or a slow layer. Everything is read in whole blocks, neighbours
    together; larger blocks mean fewer and larger reads beneath. Writes go through at once. The
    layers xz and cow keep their own data and need no cache above them; beneath xz it is of no use
    either, for xz reads each byte once.

        nbdserve --layer cache:size=256M http https://example.org/disk.img
        nbdserve --layer cache:size=1G,block=1M http https://example.org/disk.img
    """

    Params = CacheParams
    shareable = True

    _info: DeviceInfo

    def __init__(self, inner: Device, params: CacheParams) -> None:
        super().__init__(inner)
        self._block = params.block
        self._budget = params.size
        self._run = max(1, min(_RUN, params.size // 4) // params.block)
        self._batch = max(1, _BATCH // params.block)
        self._blocks: BlockCache[int, memoryview] = BlockCache(params.size, loads=_LOADS)
        self._writing: set[asyncio.Task[None]] = set()

    @property
    def info(self) -> DeviceInfo:
        return self._info

    @property
    def identity(self) -> str | None:
        return self.inner.identity

    async def open(self, *, read_only: bool) -> None:
        inner = self.inner.info
        minimum, preferred, maximum = inner.block_size
        if self._block % minimum:
            raise ConfigError(
                f"{self._block} is no multiple of {minimum}, the block size beneath",
                table="layer cache",
                key="block",
            )
        block_size = inner.block_size._replace(preferred=max(preferred, self._block))
        if block_size.preferred > maximum:
            block_size = inner.block_size
        self._info = replace(inner, block_size=block_size, can=inner.can | Capability.CACHE)

    async def close(self) -> None:
        if self._writing:
            await asyncio.wait(self._writing)
        await self._blocks.close()

    def read_into_nowait(self, offset: int, view: memoryview) -> bool:
        for number, start, length, at in pieces(offset, len(view), self._block):
            data = self._blocks.get_nowait(number)
            if data is None:
                return False
            view[at : at + length] = data[start : start + length]
        return True

    async def read_into(self, offset: int, view: memoryview) -> None:
        await self._read(offset, len(view), view)

    async def cache(self, offset: int, length: int) -> None:
        # more than fits would only push out what was just read
        await self._read(offset, min(length, self._budget), None)

    async def write(self, offset: int, data: memoryview, *, fua: bool) -> None:
        await self._through(offset, len(data), self.inner.write(offset, data, fua=fua))

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool, may_trim: bool, fast: bool
    ) -> None:
        zero = self.inner.write_zeroes(offset, length, fua=fua, may_trim=may_trim, fast=fast)
        await self._through(offset, length, zero)

    async def trim(self, offset: int, length: int, *, fua: bool) -> None:
        await self._through(offset, length, self.inner.trim(offset, length, fua=fua))

    async def flush(self) -> None:
        await self.inner.flush()

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        return await self.inner.extents(offset, length)

    async def _read(self, offset: int, length: int, view: memoryview | None) -> None:
        """Fill `view`, if there is one, a batch of blocks at a time."""
        parts = pieces(offset, length, self._block)
        while batch := list(islice(parts, self._batch)):
            found: dict[int, memoryview] = {}
            claims: dict[int, Claim[int, memoryview]] = {}
            try:
                self._claim([piece.unit for piece in batch], found, claims)
                for number, start, size, at in batch:
                    data = found.get(number)
                    if data is None:
                        data = await claims[number].wait(number)
                    if view is not None:
                        view[at : at + size] = data[start : start + size]
            finally:
                for claim in claims.values():
                    claim.leave()

    def _claim(
        self,
        numbers: Sequence[int],
        found: dict[int, memoryview],
        claims: dict[int, Claim[int, memoryview]],
    ) -> None:
        """Take each block from the cache, or from a read under way, or begin one."""
        missing = []
        for number in numbers:
            data = self._blocks.get_nowait(number)
            if data is not None:
                found[number] = data
            elif (joined := self._blocks.join(number)) is not None:
                claims[number] = joined
            else:
                missing.append(number)
        for run in runs(missing, self._run):
            load = functools.partial(self._load, run)
            claim = self._blocks.start(run, load, len(run) * self._block)
            claims.update(dict.fromkeys(run, claim))

    async def _load(self, run: range) -> list[Weighed[memoryview]]:
        """Read a run of blocks at once; each is kept in memory of its own, to be freed alone."""
        begin = run.start * self._block
        buffer = zeroed_buffer(min(run.stop * self._block, self._info.size) - begin)
        if not self.inner.read_into_nowait(begin, buffer):
            await self.inner.read_into(begin, buffer)
        if len(run) == 1:
            return [Weighed(buffer, len(buffer))]
        blocks = (buffer[at : at + self._block] for at in range(0, len(buffer), self._block))
        return [Weighed(memoryview(bytes(block)), len(block)) for block in blocks]

    async def _through(self, offset: int, length: int, change: Coroutine[Any, Any, None]) -> None:
        """Carry a write out to its end, whoever still waits for it, then forget what it touched."""
        task = asyncio.get_running_loop().create_task(change)
        self._writing.add(task)
        task.add_done_callback(functools.partial(self._written, offset, length))
        await asyncio.wait((task,))
        task.result()

    def _written(self, offset: int, length: int, task: asyncio.Task[None]) -> None:
        self._writing.discard(task)
        # after the write, not before it: a read that began meanwhile may have seen either
        first, end = offset // self._block, align_up(offset + length, self._block) // self._block
        self._blocks.discard(range(first, end))
        if not task.cancelled():
            task.exception()  # told to the writer; if that was cancelled, to nobody


def runs(numbers: Sequence[int], most: int) -> Iterator[range]:
    """Join ascending block numbers to runs of neighbours, of at most `most` blocks each."""
    begin = 0
    for at in range(1, len(numbers) + 1):
        if at == len(numbers) or numbers[at] != numbers[at - 1] + 1 or at - begin == most:
            yield range(numbers[begin], numbers[at - 1] + 1)
            begin = at
