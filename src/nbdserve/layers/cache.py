"""cache: keep what was read, so that it is read from below only once.

What the operator writes; `cachememory` does it.
"""

from collections.abc import Mapping

from nbdserve.device import Device, Passthrough
from nbdserve.layers.cachememory import MemoryCache
from nbdserve.layers.cacheparams import CacheParams

__all__ = ["CacheLayer", "CacheParams"]


class CacheLayer(Passthrough):
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

    def __init__(self, inner: Device, params: CacheParams) -> None:
        super().__init__(MemoryCache(inner, params))

    async def open(self, *, read_only: bool) -> None:
        await self.inner.open(read_only=read_only)

    async def close(self) -> None:
        await self.inner.close()

    def status(self) -> Mapping[str, int | float | str | bool]:
        return self.inner.status()
