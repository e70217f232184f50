"""A disk whose every byte tells where it belongs: each 8-byte word is its own offset.

A copy, a cache or a layer that puts a byte in the wrong place cannot go unnoticed. The bytes of
64 KiB differ from those of the next 64 KiB only in the high six bytes of each word, so they are
copied from a template and the high bytes that are not zero laid over it, by strides.
"""

import array
import sys
from dataclasses import dataclass

from nbdserve.device import BlockSize, Device, DeviceInfo
from nbdserve.params import SIZE, param
from nbdserve.ranges import pieces

__all__ = ["PatternParams", "PatternSource"]

_WORD = 8
_UNIT = 1 << 16
_HIGH_BYTES = 6  # of a word, those that are the same throughout a unit


def _words_of_first_unit() -> memoryview:
    words = array.array("Q", range(0, _UNIT, _WORD))
    if sys.byteorder == "little":
        words.byteswap()
    return memoryview(words.tobytes())


_TEMPLATE = _words_of_first_unit()


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
    shareable = True
    writable = False

    def __init__(self, params: PatternParams) -> None:
        self._info = DeviceInfo(params.size, BlockSize(1, 4096, 32 << 20))

    @property
    def info(self) -> DeviceInfo:
        return self._info

    def read_into_nowait(self, offset: int, view: memoryview) -> bool:
        for unit, start, length, at in pieces(offset, len(view), _UNIT):
            piece = view[at : at + length]
            piece[:] = _TEMPLATE[start : start + length]
            for place, high in enumerate(unit.to_bytes(_HIGH_BYTES, "big")):
                if high:
                    stride = piece[(place - start) % _WORD :: _WORD]
                    stride[:] = bytes((high,)) * len(stride)
        return True

    async def read_into(self, offset: int, view: memoryview) -> None:
        self.read_into_nowait(offset, view)
