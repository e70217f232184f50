"""A RAM disk: sparse, so that its size costs nothing until it is written.

Clusters are allocated by the first write that is not all zero and dropped by whole-cluster zeroes
and trims. Nothing here ever waits, so every read and write is carried out at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from nbdserve.device import BlockSize, Capability, Device, DeviceInfo, Done
from nbdserve.extents import DATA, ZERO_HOLE, Extent, coalesce
from nbdserve.params import SIZE, param
from nbdserve.ranges import pieces

__all__ = ["MemoryParams", "MemorySource"]

_CLUSTER = 64 << 10  # small enough for sparse file systems, large enough for few dict look-ups
_CAN = Capability.WRITES | Capability.CACHE | Capability.EXTENTS
_MOST_CLUSTERS = 2 << 10  # looked at in one call of extents: some milliseconds
_ZEROES = bytes(_CLUSTER)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryParams:
    """Parameters of `memory`."""

    size: int = param(SIZE, argument=True, help="size of the disk; memory is used as it is written")


class MemorySource(Device):
    """A disk in memory, empty at the start and gone at the end.

    Sparse: `memory 1T` costs nothing until it is written. For scratch disks and tests.

        nbdserve memory 1G
    """

    Params = MemoryParams

    def __init__(self, params: MemoryParams) -> None:
        self._info = DeviceInfo(params.size, BlockSize(1, 4096, 32 << 20), _CAN)
        self._clusters: dict[int, bytearray] = {}

    @property
    def info(self) -> DeviceInfo:
        return self._info

    def read_into_nowait(self, offset: int, view: memoryview) -> bool:
        for number, start, length, at in pieces(offset, len(view), _CLUSTER):
            cluster = self._clusters.get(number)
            if cluster is None:
                view[at : at + length] = _ZEROES[:length]
            else:
                view[at : at + length] = memoryview(cluster)[start : start + length]
        return True

    async def read_into(self, offset: int, view: memoryview) -> None:
        self.read_into_nowait(offset, view)

    async def write(self, offset: int, data: memoryview, *, fua: bool) -> None:
        self._put(offset, data)

    def write_nowait(self, offset: int, data: memoryview, *, fua: bool, done: Done) -> bool:
        self._put(offset, data)
        done(None)
        return True

    def flush_nowait(self, done: Done) -> bool:
        done(None)
        return True

    def _put(self, offset: int, data: memoryview) -> None:
        for number, start, length, at in pieces(offset, len(data), _CLUSTER):
            cluster = self._clusters.get(number)
            if cluster is None:
                if _ZEROES.startswith(data[at : at + length]):
                    continue
                cluster = self._clusters[number] = bytearray(_CLUSTER)
            cluster[start : start + length] = data[at : at + length]

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool, may_trim: bool, fast: bool
    ) -> None:
        first, end = offset // _CLUSTER, -(-(offset + length) // _CLUSTER)
        for number in self._allocated(first, end):
            start = max(offset - number * _CLUSTER, 0)
            stop = min(offset + length - number * _CLUSTER, _CLUSTER)
            if stop - start == _CLUSTER:
                del self._clusters[number]
            else:
                self._clusters[number][start:stop] = _ZEROES[: stop - start]

    async def trim(self, offset: int, length: int, *, fua: bool) -> None:
        await self.write_zeroes(offset, length, fua=fua, may_trim=True, fast=True)

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        first, end = offset // _CLUSTER, -(-(offset + length) // _CLUSTER)
        if len(self._clusters) > _MOST_CLUSTERS:
            end = min(end, first + _MOST_CLUSTERS)
        stop = min(offset + length, end * _CLUSTER)
        found = []
        position = offset
        for number in self._allocated(first, end):
            start = max(number * _CLUSTER, position)
            found.append(Extent(start - position, ZERO_HOLE))
            position = min((number + 1) * _CLUSTER, stop)
            found.append(Extent(position - start, DATA))
        return coalesce([*found, Extent(stop - position, ZERO_HOLE)])

    def _allocated(self, first: int, end: int) -> list[int]:
        """List the clusters of a range that exist, in order: look through whichever is fewer."""
        if len(self._clusters) < end - first:
            return sorted(number for number in self._clusters if first <= number < end)
        return [number for number in range(first, end) if number in self._clusters]
