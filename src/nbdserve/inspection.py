"""What an image is and what reading it will cost: facts gathered from an opened chain.

Pure but for `gather`, which asks the chain for its extents. Source of the advice: PEERS' experience
that blocks of 192 MiB, the widest-spread image format's default, cost seconds for one sector.
"""

from dataclasses import dataclass
from typing import Any

from nbdserve.build import Chain
from nbdserve.extents import State
from nbdserve.formats.xz import XzLayout
from nbdserve.spec import ExportSpec

__all__ = ["Inspection", "gather", "render", "size_text"]

_LARGE_BLOCK = 64 << 20  # over this, one sector costs more than a second of decoding or so
_MOST_EXTENT_CALLS = 10_000
_DECODED_A_SECOND = 100 << 20  # liblzma on one core of a common server, within a factor of two


@dataclass(frozen=True, slots=True)
class Inspection:
    """Facts about one image.

    Attributes:
        size: bytes.
        elements: the chain's elements, nearest the client first.
        data: bytes known to be data, or not known to be anything else.
        zero: bytes known to read as zeroes.
        xz: its block layout, if an xz layer is in the chain.
    """

    size: int
    elements: tuple[str, ...]
    data: int
    zero: int
    xz: XzLayout | None

    @property
    def warnings(self) -> list[str]:
        """What an operator should know before serving it, each with its remedy."""
        if self.xz is None or self.xz.largest_block <= _LARGE_BLOCK:
            return []
        return [
            (
                f"the largest block is {size_text(self.xz.largest_block)}: reading one sector "
                f"may cost {size_text(self.xz.largest_packed_block)} to fetch; compress "
                "the image again with smaller blocks: xz --block-size=16MiB"
            )
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
            found["xz"] = {
                "compressed_size": self.xz.packed_size,
                "streams": self.xz.streams,
                "blocks": self.xz.blocks,
                "largest_block": self.xz.largest_block,
                "largest_compressed_block": self.xz.largest_packed_block,
                "checks": [check.name for check in self.xz.checks],
                "padding": self.xz.padding,
            }
        return found


async def gather(spec: ExportSpec, chain: Chain) -> Inspection:
    """Ask an opened chain what it is."""
    device = chain.outermost
    size, position, zero, calls = device.info.size, 0, 0, 0
    while position < size and calls < _MOST_EXTENT_CALLS:
        calls += 1
        for extent in await device.extents(position, size - position):
            position += extent.length
            zero += extent.length if extent.state & State.ZERO else 0
    layouts = [getattr(d, "layout", None) for d in chain.devices]
    xz = next((found for found in layouts if isinstance(found, XzLayout)), None)
    names = (*(layer.name for layer in spec.layers), spec.source.name)
    return Inspection(size, names, size - zero, zero, xz)


def render(found: Inspection) -> str:
    """Tell it to a person."""
    lines = [
        f"chain:    {' -> '.join(found.elements)}",
        f"size:     {size_text(found.size)}",
        f"data:     {size_text(found.data)} (or not known to be zero)",
        f"zero:     {size_text(found.zero)}",
    ]
    if found.xz is not None:
        xz = found.xz
        seconds = xz.largest_block / _DECODED_A_SECOND
        lines += [
            "xz:",
            f"  compressed:    {size_text(xz.packed_size)}",
            f"  streams:       {xz.streams}",
            f"  blocks:        {xz.blocks}",
            (
                f"  largest block: {size_text(xz.largest_block)}, "
                f"compressed {size_text(xz.largest_packed_block)}"
            ),
            f"  checks:        {', '.join(check.name for check in xz.checks) or 'none'}",
            (
                f"  one sector:    at most {size_text(xz.largest_packed_block)} to fetch, "
                f"about {seconds:.2g} s to decode"
            ),
        ]
    lines += [f"warning:  {warning}" for warning in found.warnings]
    return "\n".join(lines) + "\n"


def size_text(size: int) -> str:
    """Write a size for a person, with the exact number of bytes where it was rounded."""
    for unit, shift in (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 1 << shift:
            return f"{size / (1 << shift):.4g} {unit} ({size} bytes)"
    return f"{size} bytes"
