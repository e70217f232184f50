"""A disk that reads as zeroes and forgets what is written to it."""

from collections.abc import Sequence
from dataclasses import dataclass

from nbdserve.device import BlockSize, Capability, Device, DeviceInfo
from nbdserve.extents import ZERO_HOLE, Extent
from nbdserve.params import SIZE, param

__all__ = ["NullParams", "NullSource"]

_CAN = Capability.WRITES | Capability.CACHE | Capability.EXTENTS
_ZEROES = bytes(1 << 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class NullParams:
    """Parameters of `null`."""

    size: int = param(SIZE, argument=True, help="size of the disk")


class NullSource(Device):
    """A disk of zeroes that swallows writes.

    For measuring everything but the disk, and as the base of a `cow` layer.

        nbdserve null 10G
    """

    Params = NullParams
    shareable = True

    def __init__(self, params: NullParams) -> None:
        self._info = DeviceInfo(params.size, BlockSize(1, 4096, 32 << 20), _CAN)

    @property
    def info(self) -> DeviceInfo:
        return self._info

    def read_into_nowait(self, offset: int, view: memoryview) -> bool:
        step = len(_ZEROES)
        for at in range(0, len(view), step):
            part = view[at : at + step]
            part[:] = _ZEROES[: len(part)]
        return True

    async def read_into(self, offset: int, view: memoryview) -> None:
        self.read_into_nowait(offset, view)

    async def write(self, offset: int, data: memoryview, *, fua: bool) -> None:
        pass

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool, may_trim: bool, fast: bool
    ) -> None:
        pass

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        return [Extent(length, ZERO_HOLE)]
