"""A disk whose every byte tells where it belongs: each 8-byte word is its own offset.

A copy, a cache or a layer that puts a byte in the wrong place cannot go unnoticed.
"""

import array
import sys
from dataclasses import dataclass

from nbdserve.device import BlockSize, Device, DeviceInfo
from nbdserve.params import SIZE, param

__all__ = ["PatternParams", "PatternSource"]

_WORD = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PatternParams:
    """Parameters of `pattern`."""

    size: int = param(SIZE, argument=True, help="size of the disk")


class PatternSource(Device):
    """A read-only disk in which each 8-byte word, big-endian, is its own offset.

    For testing clients and layers: wrong bytes show where they came from.

        nbdserve pattern 1G
    """

    Params = PatternParams

    def __init__(self, params: PatternParams) -> None:
        self._info = DeviceInfo(params.size, BlockSize(1, 4096, 32 << 20))

    @property
    def info(self) -> DeviceInfo:
        return self._info

    def read_into_nowait(self, offset: int, view: memoryview) -> bool:
        first = offset - offset % _WORD
        words = array.array("Q", range(first, offset + len(view), _WORD))
        if sys.byteorder == "little":
            words.byteswap()
        skip = offset - first
        view[:] = memoryview(words).cast("B")[skip : skip + len(view)]
        return True

    async def read_into(self, offset: int, view: memoryview) -> None:
        self.read_into_nowait(offset, view)
