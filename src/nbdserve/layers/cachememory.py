"""cache without `path`: keep what was read in memory, by bytes, for all connections.

Reads become whole blocks of the cache; a run of neighbouring blocks that are missing is one read
beneath, and many readers of a block wait for one read. Writes go through: what they touch is
dropped from the cache, and read again when it is wanted.

Invariants: once a write is answered, no read that begins then gets what was there before. A block
whose read began before a write ended is not kept and not handed to readers who come later; a write
that is cancelled up here still runs to its end, for only its end tells when that is certain.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice

from nbdserve.blockcache import Claim, Weighed
from nbdserve.buffers import zeroed_buffer
from nbdserve.device import Capability, Device, DeviceInfo, Done
from nbdserve.errors import ConfigError
from nbdserve.extents import Extent
from nbdserve.layers.cacheparams import CacheParams
from nbdserve.layers.cacheruns import RunLoader, single_blocks
from nbdserve.layers.writethrough import WriteThrough
from nbdserve.ranges import align_up, pieces

__all__ = ["MemoryCache"]


class MemoryCache(WriteThrough):
    """A cache in memory, written through."""

    _info: DeviceInfo

    def __init__(self, inner: Device, params: CacheParams) -> None:
        super().__init__(inner)
        self._block = params.block
        self._budget = params.size
        self._loader = RunLoader(params.size, params.block, self._load)
        self._blocks = self._loader.blocks

    @property
    def info(self) -> DeviceInfo:
        return self._info

    @property
    def identity(self) -> str | None:
        return self.inner.identity

    def status(self) -> Mapping[str, int | float | str | bool]:
        return {"held": self._blocks.weight, "limit": self._budget, "blocks": len(self._blocks)}

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
        await super().close()
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

    def write_nowait(self, offset: int, data: memoryview, *, fua: bool, done: Done) -> bool:
        length = len(data)

        def written(error: Exception | None) -> None:
            self._forget(offset, length)
            done(error)

        return self.inner.write_nowait(offset, data, fua=fua, done=written)

    async def flush(self) -> None:
        await self.inner.flush()

    def flush_nowait(self, done: Done) -> bool:
        return self.inner.flush_nowait(done)

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        return await self.inner.extents(offset, length)

    async def _read(self, offset: int, length: int, view: memoryview | None) -> None:
        """Fill `view`, if there is one, a batch of blocks at a time."""
        parts = pieces(offset, length, self._block)
        while batch := list(islice(parts, self._loader.batch)):
            found: dict[int, memoryview] = {}
            claims: dict[int, Claim[int, memoryview]] = {}
            try:
                self._loader.claim([piece.unit for piece in batch], found, claims)
                for number, start, size, at in batch:
                    data = found.get(number)
                    if data is None:
                        data = await claims[number].wait(number)
                    if view is not None:
                        view[at : at + size] = data[start : start + size]
            finally:
                for claim in claims.values():
                    claim.leave()

    async def _load(self, run: range) -> list[Weighed[memoryview]]:
        """Read a run of blocks at once; each is kept in memory of its own, to be freed alone."""
        begin = run.start * self._block
        buffer = zeroed_buffer(min(run.stop * self._block, self._info.size) - begin)
        if not self.inner.read_into_nowait(begin, buffer):
            await self.inner.read_into(begin, buffer)
        return single_blocks(buffer, self._block)

    def _forget(self, offset: int, length: int) -> None:
        first, end = offset // self._block, align_up(offset + length, self._block) // self._block
        self._blocks.discard(range(first, end))
