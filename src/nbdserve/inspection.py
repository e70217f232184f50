"""What an image is and what reading it will cost: facts, and what to do about bad ones.

Pure but for `gather` and `gather_xz`, which ask devices. xz can only be read from the start of a
block, so the block sizes decide everything: blocks of 192 MiB, which some tools make, cost seconds
for one sector, and a file in one block has to be decoded from its beginning.

The blocks of an xz file are read from its index here and not asked of the xz layer, so that a file
the layer refuses can be inspected too: it is the one whose remedy is wanted.
"""

import shlex
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any, Final

from nbdserve.device import Device
from nbdserve.extents import State
from nbdserve.formats.xz import XzIndex, XzLayout

__all__ = [
    "Inspection",
    "ReadCost",
    "XzFacts",
    "gather",
    "gather_xz",
    "pack_command",
    "render",
    "short_size",
    "size_text",
]  # fmt: skip

_LARGE_BLOCK: Final = 64 << 20  # over this, one sector costs more than a second of decoding or so
_GOOD_BLOCK: Final = 16 << 20
_MOST_EXTENT_CALLS: Final = 10_000
_DECODED_A_SECOND: Final = 100 << 20  # liblzma on one core of a common server, within a factor of 2
_LINK: Final = 100_000_000 / 8  # bytes a second


@dataclass(frozen=True, slots=True)
class ReadCost:
    """What reading one sector costs when nothing is cached.

    Attributes:
        fetch_bytes: bytes of the file to fetch.
        decode_bytes: bytes of data to decode.
    """

    fetch_bytes: int
    decode_bytes: int

    @property
    def fetch_seconds(self) -> float:
        """Time to fetch it over 100 Mbit/s."""
        return self.fetch_bytes / _LINK

    @property
    def decode_seconds(self) -> float:
        """Time to decode it on one core, within a factor of two."""
        return self.decode_bytes / _DECODED_A_SECOND

    def as_json(self) -> dict[str, float]:
        """Return the facts as plain values."""
        return {
            **asdict(self),
            "fetch_seconds_at_100_mbit": round(self.fetch_seconds, 4),
            "decode_seconds_estimated": round(self.decode_seconds, 4),
        }


@dataclass(frozen=True, slots=True)
class XzFacts:
    """The blocks of an xz file.

    Attributes:
        layout: their number, the largest, the checks.
        typical: what a sector of a typical block costs: half of the packed bytes lie in blocks at
            most as large. (The median block would be one of zeroes, which cost nothing.)
    """

    layout: XzLayout
    typical: ReadCost

    @property
    def largest(self) -> ReadCost:
        """What a sector of the largest block costs."""
        return ReadCost(self.layout.largest_packed_block, self.layout.largest_block)

    @property
    def wants_packing(self) -> bool:
        """Whether smaller blocks would make reading it bearable."""
        return self.layout.largest_block > _LARGE_BLOCK or self.is_one_block

    @property
    def is_one_block(self) -> bool:
        """Whether all of it is one block that is not small."""
        return self.layout.blocks == 1 and self.layout.size > _GOOD_BLOCK

    def as_json(self) -> dict[str, Any]:
        """Return the facts as plain values."""
        layout = self.layout
        return {
            "compressed_size": layout.packed_size,
            "streams": layout.streams,
            "blocks": layout.blocks,
            "largest_block": layout.largest_block,
            "largest_compressed_block": layout.largest_packed_block,
            "checks": [check.name for check in layout.checks],
            "padding": layout.padding,
            "one_sector": {
                "typical": self.typical.as_json(),
                "largest": self.largest.as_json(),
            },
        }


@dataclass(frozen=True, slots=True)
class Inspection:
    """Facts about one image.

    Attributes:
        size: bytes.
        elements: the chain's elements, nearest the client first.
        data: bytes known to be data, or not known to be anything else.
        zero: bytes known to read as zeroes.
        xz: its blocks, if it is packed.
        remedy: the command that packs it anew, in blocks of a good size.
    """

    size: int
    elements: tuple[str, ...]
    data: int
    zero: int
    xz: XzFacts | None = None
    remedy: str = ""

    @property
    def warnings(self) -> list[str]:
        """What an operator should know before serving it."""
        if self.xz is None or not self.xz.wants_packing:
            return []
        cost = self.xz.largest
        what = "all of it is one block" if self.xz.is_one_block else "its blocks are large"
        return [
            (
                f"{what}: reading one sector may fetch {short_size(cost.fetch_bytes)} and decode "
                f"{short_size(cost.decode_bytes)}; compress it anew: {self.remedy}"
            ),
        ]

    def as_json(self) -> dict[str, Any]:
        """Return the facts as plain values."""
        found: dict[str, Any] = {
            "size": self.size,
            "elements": list(self.elements),
            "extents": {"data": self.data, "zero": self.zero},
            "warnings": self.warnings,
        }
        if self.xz is not None:
            found["xz"] = self.xz.as_json()
            found["remedy"] = self.remedy if self.xz.wants_packing else None
        return found


async def gather(device: Device) -> tuple[int, int]:
    """Ask a device how much of it is data and how much is known to be zero, in bytes."""
    size, position, zero, calls = device.info.size, 0, 0, 0
    while position < size and calls < _MOST_EXTENT_CALLS:
        calls += 1
        for extent in await device.extents(position, size - position):
            position += extent.length
            zero += extent.length if extent.state & State.ZERO else 0
    return size - zero, zero


def gather_xz(index: XzIndex) -> XzFacts:
    """Sum the index of an xz file up."""
    by_packed_size = sorted(range(index.blocks), key=index.unpadded.__getitem__)
    sums = list(accumulate(index.unpadded[number] for number in by_packed_size))
    if not sums:
        return XzFacts(index.layout(), ReadCost(0, 0))
    typical = by_packed_size[bisect_left(sums, sums[-1] / 2)]
    return XzFacts(index.layout(), ReadCost(index.unpadded[typical], index.block_size(typical)))


def pack_command(words: Sequence[str], layers: Sequence[str], *, image: str) -> str:
    """Make the command that packs an image in blocks of a good size.

    Args:
        words: what names the image, as it was written.
        layers: likewise.
        image: its path or URL, after which the new file is named.
    """
    path = image.partition("?")[0].rstrip("/")
    name = path.rpartition("/")[2].removesuffix(".xz") or "image"
    wrapped = [part for layer in layers for part in ("--layer", layer)]
    return shlex.join(["nbdctl", "pack", *wrapped, *words, f"{name}.16M.xz", "--block-size", "16M"])


def render(found: Inspection) -> str:
    """Tell it to a person."""
    lines = [
        f"chain:    {' -> '.join(found.elements)}",
        f"size:     {size_text(found.size)}",
        f"data:     {size_text(found.data)} (or not known to be zero)",
        f"zero:     {size_text(found.zero)}",
    ]
    if found.xz is not None:
        lines += _xz_lines(found.xz)
    lines += [f"warning:  {warning}" for warning in found.warnings]
    return "\n".join(lines) + "\n"


def _xz_lines(facts: XzFacts) -> list[str]:
    xz = facts.layout
    return [
        "xz:",
        f"  compressed:    {size_text(xz.packed_size)}",
        f"  streams:       {xz.streams}",
        f"  blocks:        {xz.blocks}",
        f"  checks:        {', '.join(check.name for check in xz.checks) or 'none'}",
        f"  typical block: {_block_text(facts.typical)}",
        f"  largest block: {_block_text(facts.largest)}",
        "  one sector, nothing cached, over 100 Mbit/s:",
        f"    typical:     {_cost_text(facts.typical)}",
        f"    at most:     {_cost_text(facts.largest)}",
    ]


def _block_text(cost: ReadCost) -> str:
    return f"{size_text(cost.decode_bytes)}, compressed {size_text(cost.fetch_bytes)}"


def _cost_text(cost: ReadCost) -> str:
    return (
        f"fetch {short_size(cost.fetch_bytes)} ({cost.fetch_seconds:.2g} s), "
        f"decode {short_size(cost.decode_bytes)} (about {cost.decode_seconds:.2g} s)"
    )


def short_size(size: int) -> str:
    """Write a size for a person, rounded."""
    return size_text(size).partition(" (")[0]


def size_text(size: int) -> str:
    """Write a size for a person, with the exact number of bytes where it was rounded."""
    for unit, shift in (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 1 << shift:
            return f"{size / (1 << shift):.4g} {unit} ({size} bytes)"
    return f"{size} bytes"
