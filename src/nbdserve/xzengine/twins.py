"""Blocks with the same packed bytes, as the zero blocks of an image have: decoded once.

Only blocks whose sizes, packed and unpacked, are those of another block can be: the index tells, so
that no other block pays for being compared. Which of them are the same is told by a digest of their
packed bytes.
"""

import hashlib
from collections import Counter
from itertools import pairwise
from typing import Final

from nbdserve.formats.xz import XzBlock, XzIndex

__all__ = ["Twins", "digest_of"]

_KEPT: Final = (
    1 << 16
)  # digests, the latest used: some 10 MiB; an image may have millions of blocks


class Twins:
    """Which blocks may be the same as another, and which are.

    Args:
        index: the file's; a million blocks take half a second to look through.
    """

    def __init__(self, index: XzIndex) -> None:
        sizes = (end - start for start, end in pairwise(index.starts))
        shapes = Counter(zip(index.unpadded, sizes, strict=True))
        self._shared = {shape for shape, count in shapes.items() if count > 1 and _pays(*shape)}
        self._first: dict[bytes, int] = {}

    def may_have_one(self, block: XzBlock) -> bool:
        """Tell whether another block has the same sizes."""
        return (block.unpadded_size, block.size) in self._shared

    def first_with(self, digest: bytes, number: int) -> int:
        """Return the block that first came with this digest: maybe `number` itself, now."""
        first = self._first.pop(digest, number)
        self._first[digest] = first
        if len(self._first) > _KEPT:
            del self._first[next(iter(self._first))]
        return first

    def known(self, digest: bytes, number: int) -> int:
        """Return the block that first came with this digest, or `number` if none did."""
        return self._first.get(digest, number)

    def withdraw(self, digest: bytes, number: int) -> None:
        """Say that a block cannot be had, so that the next one with its digest is decoded."""
        if self._first.get(digest) == number:
            del self._first[digest]


def _pays(unpadded: int, size: int) -> bool:
    """Tell whether decoding such a block costs more than comparing it does."""
    return unpadded < size  # else all of it is stored; such blocks have all the same sizes


def digest_of(block: XzBlock, packed: memoryview) -> bytes:
    """Return what two blocks of the same packed bytes have in common; takes 1 ms a MiB.

    What the index says of them is a part of it: where it lies, one of them is corrupt.
    """
    found = hashlib.blake2b(packed[block.lead :], digest_size=20)
    found.update(b"%d %d %d" % (block.check, block.unpadded_size, block.size))
    return found.digest()
