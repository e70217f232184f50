"""The layout of an xz file: where each block lies, packed and unpacked.

A million blocks must be no burden (4 KiB blocks exist), so the index is a few arrays of numbers and
a block is described when it is asked for.

Invariants: blocks are in order; offsets in `starts` never decrease (a block may be empty), and its
last entry is the size of the image; the streams and their padding cover the file without a gap.

Source: The .xz File Format 1.1.0.
"""

import enum
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from nbdserve.ranges import Piece, align_up

__all__ = ["HEADER_SIZE", "Check", "XzBlock", "XzIndex", "XzLayout"]

HEADER_SIZE: Final = 12
"""Bytes of a stream header, and of a stream footer."""


class Check(enum.IntEnum):
    """The integrity checks of blocks, by their number in the stream flags."""

    NONE = 0
    CRC32 = 1
    CRC64 = 4
    SHA256 = 10


@dataclass(frozen=True, slots=True)
class XzBlock:
    """One block: what to fetch, and what it must decode to.

    Attributes:
        number: counted from 0 through the whole file.
        offset: where its data begins in the image, in bytes.
        size: length of its data in bytes.
        packed_offset: where its own bytes begin in the file.
        unpadded_size: their length in bytes, without the padding to a multiple of 4.
        check: the check its data is verified by.
        lead: bytes of stream header to fetch in front of it (12 for a stream's first block).
    """

    number: int
    offset: int
    size: int
    packed_offset: int
    unpadded_size: int
    check: Check
    lead: int

    @property
    def fetch_offset(self) -> int:
        """Where the bytes to fetch begin in the file."""
        return self.packed_offset - self.lead

    @property
    def fetch_length(self) -> int:
        """How many bytes to fetch: stream header if any, block, block padding."""
        return self.lead + align_up(self.unpadded_size, 4)


@dataclass(frozen=True, slots=True)
class XzLayout:
    """What an operator wants to know of an xz file; sizes in bytes.

    Attributes:
        size: length of the image.
        packed_size: length of the file.
        streams: streams, empty ones included.
        blocks: blocks, empty ones included.
        largest_block: the most data in one block: what reading one byte may cost to decode.
        largest_packed_block: the most file bytes in one block: what it may cost to fetch.
        checks: the checks in use.
        padding: stream padding.
    """

    size: int
    packed_size: int
    streams: int
    blocks: int
    largest_block: int
    largest_packed_block: int
    checks: tuple[Check, ...]
    padding: int


@dataclass(frozen=True, slots=True)
class XzIndex:
    """Where everything is in one xz file; made by `nbdserve.formats.xzindex.read_index`.

    Attributes:
        packed_size: length of the file in bytes.
        padding: bytes of stream padding in it.
        starts: for each block its offset in the image, then the size of the image.
        packed_at: for each block where it begins in the file.
        unpadded: for each block its length in the file, without padding.
        stream_first: for each stream the number of its first block, or of the next stream's.
        stream_checks: for each stream its check.
    """

    packed_size: int
    padding: int
    starts: "array[int]"
    packed_at: "array[int]"
    unpadded: "array[int]"
    stream_first: "array[int]"
    stream_checks: bytes

    @property
    def size(self) -> int:
        """Length of the image in bytes."""
        return self.starts[-1]

    @property
    def blocks(self) -> int:
        """Number of blocks, empty ones included."""
        return len(self.unpadded)

    def block_at(self, offset: int) -> int:
        """Number of the block that holds this byte of the image."""
        return bisect_right(self.starts, offset) - 1

    def block_size(self, number: int) -> int:
        """Length of a block's data in bytes."""
        return self.starts[number + 1] - self.starts[number]

    def block(self, number: int) -> XzBlock:
        """Describe one block."""
        stream = bisect_right(self.stream_first, number) - 1
        return XzBlock(
            number,
            self.starts[number],
            self.block_size(number),
            self.packed_at[number],
            self.unpadded[number],
            Check(self.stream_checks[stream]),
            HEADER_SIZE if self.stream_first[stream] == number else 0,
        )

    def pieces(self, offset: int, length: int) -> Iterator[Piece]:
        """Split a range of the image at block boundaries; none empty, `unit` is the block."""
        number = self.block_at(offset)
        at = 0
        while at < length:
            begin, end = self.starts[number], self.starts[number + 1]
            size = min(end - (offset + at), length - at)
            if size > 0:
                yield Piece(number, offset + at - begin, size, at)
                at += size
            number += 1

    def neighbours(self, number: int, *, small: int, window: int) -> range:
        """Name the blocks to fetch with this one by one request; often only itself.

        Small blocks that follow each other within one `window` of the file go together. Which
        ones depends on nothing but the index, so every block of a run names the same run.

        Args:
            number: the block wanted.
            small: bytes of a block's packed form, above which it goes alone.
            window: bytes of the file.
        """
        packed_at, unpadded = self.packed_at, self.unpadded
        if unpadded[number] > small:
            return range(number, number + 1)
        begin = packed_at[number] // window * window
        first = last = number
        while first > 0 and packed_at[first - 1] >= begin and unpadded[first - 1] <= small:
            first -= 1
        beyond = bisect_left(packed_at, begin + window)
        while last + 1 < beyond and unpadded[last + 1] <= small:
            last += 1
        return range(first, last + 1)

    def layout(self) -> XzLayout:
        """Sum the file up."""
        sizes = (b - a for a, b in zip(self.starts, islice(self.starts, 1, None), strict=False))
        return XzLayout(
            size=self.size,
            packed_size=self.packed_size,
            streams=len(self.stream_checks),
            blocks=self.blocks,
            largest_block=max(sizes, default=0),
            largest_packed_block=max(self.unpadded, default=0),
            checks=tuple(Check(check) for check in sorted(set(self.stream_checks))),
            padding=self.padding,
        )
