"""cache: keep what was read, in memory or in a folder that outlives the process.

Two devices of one name, for they have little in common but their use: `cachememory` is written
through and forgets, `cachedisk` is only read and remembers. Here is what the operator writes.
"""

from collections.abc import Mapping

from nbdserve.device import Device, Done, Passthrough
from nbdserve.layers.cachedisk import DiskCache
from nbdserve.layers.cachememory import MemoryCache
from nbdserve.layers.cacheparams import CacheParams, refuse_alone

__all__ = ["CacheLayer", "CacheParams"]


class CacheLayer(Passthrough):
    """Keep what was read, so that it is read from below only once.

    Use it above a slow source or a slow layer. Everything is read in whole blocks, neighbours
    together; larger blocks mean fewer and larger reads beneath.

    Without path= it is kept in memory, and writes go through at once. The layers xz and cow keep
    their own data and need no such cache above them; beneath xz it is of no use either, for xz
    reads each byte once.

    With path= it is kept in a folder, for all exports and processes that name it, and served again
    after a restart, even if the origin is away. What lies beneath must be read-only and known by
    its contents (http with an ETag or a date, and xz above it); put cow above to write. Each
    block is checked the first time it is read, and read from below again if it is damaged.

        nbdserve --layer cache:size=256M http https://example.org/disk.img
        nbdserve --layer cache:path=/var/cache/nbdserve,size=20G --layer xz http URL
        nbdserve --layer cow --layer cache:path=DIR,size=20G,fill=background,fill-rate=2M http URL
    """

    Params = CacheParams
    shareable = True

    def __init__(self, inner: Device, params: CacheParams) -> None:
        refuse_alone(params)
        self._disk = None if params.path is None else DiskCache(inner, params, params.path)
        super().__init__(MemoryCache(inner, params) if self._disk is None else self._disk)

    @property
    def survives_inner(self) -> bool:
        return self._disk is not None

    async def is_ready_alone(self) -> bool:
        if self._disk is None:
            return False
        self._disk.beneath = self.beneath
        return await self._disk.is_ready_alone()

    async def open(self, *, read_only: bool) -> None:
        if self._disk is not None:
            self._disk.beneath = self.beneath
        await self.inner.open(read_only=read_only)

    async def close(self) -> None:
        await self.inner.close()

    def status(self) -> Mapping[str, int | float | str | bool]:
        return self.inner.status()

    def write_nowait(self, offset: int, data: memoryview, *, fua: bool, done: Done) -> bool:
        return self.inner.write_nowait(offset, data, fua=fua, done=done)

    def flush_nowait(self, done: Done) -> bool:
        return self.inner.flush_nowait(done)
