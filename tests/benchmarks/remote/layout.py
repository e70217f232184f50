"""Where an image lies in its xz file: the blocks, as xz itself lists them, and what a work needs.

Needs are what any server has to fetch and to decode, whole blocks of it: the limits and the columns
`bytes/need` and `requests/block` are measured by them.
"""

import bisect
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Block", "Layout", "length_of", "parse_blocks", "read_layout"]

_SECTOR = 512


@dataclass(frozen=True, slots=True)
class Block:
    """One block: bytes of the image, and of the file."""

    start: int
    size: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Layout:
    """All blocks of a file, in order.

    Attributes:
        file_size: of the xz file, bytes.
        blocks: without gaps, over the whole image.
    """

    file_size: int
    blocks: tuple[Block, ...]

    @property
    def size(self) -> int:
        """Of the image, bytes."""
        return self.blocks[-1].start + self.blocks[-1].size

    @property
    def largest(self) -> int:
        """Bytes of the largest block, decoded."""
        return max(block.size for block in self.blocks)

    def touched(self, ranges: Iterable[tuple[int, int]]) -> list[Block]:
        """Return the blocks that (offset, length) ranges of the image lie in."""
        starts = [block.start for block in self.blocks]
        found: set[int] = set()
        for offset, length in ranges:
            first = bisect.bisect_right(starts, offset) - 1
            last = bisect.bisect_right(starts, offset + max(length, 1) - 1) - 1
            found.update(range(first, last + 1))
        return [self.blocks[index] for index in sorted(found)]

    def middle(self) -> tuple[Block, int]:
        """Return the data block nearest the middle of the image, and the sector in its middle.

        A block of data is one that is packed into no less than a third of the mean.
        """
        mean = self.file_size / len(self.blocks)
        half = self.size // 2
        data = [block for block in self.blocks if block.length >= mean / 3]
        block = min(data, key=lambda block: abs(block.start + block.size // 2 - half))
        return block, (block.start + block.size // 2) // _SECTOR * _SECTOR


def parse_blocks(listing: str) -> tuple[Block, ...]:
    """Read the block lines of `xz --robot --list --verbose` (xz(1), ROBOT MODE)."""
    lines = (line.split("\t") for line in listing.splitlines())
    return tuple(
        Block(start=int(words[5]), size=int(words[7]), offset=int(words[4]), length=int(words[6]))
        for words in lines
        if words[0] == "block"
    )


def read_layout(path: Path) -> Layout:
    """Ask xz how a file is made."""
    listing = subprocess.run(
        ["xz", "--robot", "--list", "--verbose", path], capture_output=True, text=True, check=True
    ).stdout
    return Layout(path.stat().st_size, parse_blocks(listing))


def length_of(blocks: Iterable[Block]) -> int:
    """Return the bytes of the file that blocks take."""
    return sum(block.length for block in blocks)
