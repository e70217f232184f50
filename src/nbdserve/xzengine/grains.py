"""Which parts of decoded data are worth storing: all but aligned runs of zeroes.

Pure. The grid is the image's, so that what one reader learns of zeroes is true for all.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

__all__ = ["GRAIN", "Part", "parts"]

GRAIN: Final = 64 << 10
"""Bytes: zeroes are looked for in aligned units of this size, and in what is left at the ends."""

_ZEROES: Final = bytes(GRAIN)


class Part(NamedTuple):
    """A part of a chunk of data, from `begin` to `end` within it, and whether it is all zeroes."""

    begin: int
    end: int
    zero: bool


def parts(chunk: memoryview, offset: int) -> Iterator[Part]:
    """Split data into parts that are stored and parts that are zeroes; none empty, in order.

    Args:
        chunk: the data.
        offset: where it lies in the image, in bytes.
    """
    size = len(chunk)
    begin = at = 0
    kind = False
    while at < size:
        end = min(size, at + GRAIN - (offset + at) % GRAIN)
        zero = _ZEROES.startswith(chunk[at:end])  # one memcmp, and no copy
        if zero != kind:
            if at > begin:
                yield Part(begin, at, kind)
            begin, kind = at, zero
        at = end
    if size > begin:
        yield Part(begin, size, kind)
