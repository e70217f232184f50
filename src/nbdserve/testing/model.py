"""What a device must hold, for tests to compare it with: the pure half of the conformance suite.

A `Model` is the plainest device there is, a bytearray, that also knows which bytes nobody can
know: those trimmed, until they are written again, and those of a cancelled write, for good (the
thread that carries it out may still be writing).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from nbdserve.device import Device
from nbdserve.ranges import align_down, align_up

__all__ = ["Model", "Range", "Subject", "boundaries", "ranges_between"]

_KNOWN, _TRIMMED, _LOST = range(3)
_UNKNOWN_RUN = re.compile(rb"[^\0]+")
_FORGET_TRIM = bytes([_KNOWN, _KNOWN, _LOST]) + bytes(253)
_MARK_TRIM = bytes([_TRIMMED, _TRIMMED, _LOST]) + bytes(253)


class Range(NamedTuple):
    """A range of bytes of a device."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        """Where the range ends."""
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class Subject:
    """An opened device under test, and what it promises.

    Attributes:
        device: the device; whoever made the subject opens and closes it.
        contents: every byte it holds before the first write.
        keeps_writes: it reads back what was written; False for a device such as `null`.
        trim_zeroes: what was trimmed reads as zeroes; else it is unspecified.
        units: sizes at whose multiples the device changes its ways (blocks, clusters); the tests
            look closely there, and at those it announces in its block size.
    """

    device: Device
    contents: bytes = field(repr=False)
    keeps_writes: bool = True
    trim_zeroes: bool = False
    units: tuple[int, ...] = ()

    def model(self) -> "Model":
        """Make the model of the device as it is before the first write."""
        return Model(self.contents, keeps_writes=self.keeps_writes, trim_zeroes=self.trim_zeroes)

    def boundaries(self) -> list[int]:
        """List the offsets where mistakes are likely, the end of the device included."""
        info = self.device.info
        block = info.block_size
        return boundaries(info.size, block.minimum, (block.preferred, *self.units))


class Model:
    """The bytes a device must hold.

    Attributes:
        contents: the bytes; meaningless where they are unknown.
    """

    def __init__(self, contents: bytes, *, keeps_writes: bool, trim_zeroes: bool) -> None:
        self.contents = bytearray(contents)
        self._unknown = bytearray(len(contents))
        self._keeps_writes = keeps_writes
        self._trim_zeroes = trim_zeroes

    def write(self, offset: int, data: bytes) -> None:
        """Follow a write that has returned."""
        if self._keeps_writes:
            part = slice(offset, offset + len(data))
            self.contents[part] = data
            self._unknown[part] = self._unknown[part].translate(_FORGET_TRIM)

    def zero(self, offset: int, length: int) -> None:
        """Follow a write_zeroes that has returned."""
        self.write(offset, bytes(length))

    def trim(self, offset: int, length: int) -> None:
        """Follow a trim that has returned."""
        if self._trim_zeroes:
            self.zero(offset, length)
        elif self._keeps_writes:
            part = slice(offset, offset + length)
            self._unknown[part] = self._unknown[part].translate(_MARK_TRIM)

    def lose(self, offset: int, length: int) -> None:
        """Follow a write, zeroing or trim that was cancelled or failed: the range is unknown."""
        if self._keeps_writes:
            self._unknown[offset : offset + length] = bytes([_LOST]) * length

    def complaint(self, offset: int, found: bytes) -> str | None:
        """Say what is wrong with the bytes a device returned for a range, if anything is."""
        wanted = self.contents[offset : offset + len(found)]
        for run in _UNKNOWN_RUN.finditer(self._unknown, offset, offset + len(found)):
            part = slice(run.start() - offset, run.end() - offset)
            wanted[part] = found[part]
        if len(wanted) != len(found):
            return f"{len(found)} bytes at {offset}, past the end ({len(self.contents)})"
        if wanted == found:
            return None
        at = next(i for i, pair in enumerate(zip(found, wanted, strict=True)) if pair[0] != pair[1])
        word = slice(at, at + 16)
        return (
            f"wrong byte at {offset + at} (in a read of {len(found)} bytes at {offset}): "
            f"found {found[word].hex()}, wanted {wanted[word].hex()}"
        )


def boundaries(size: int, minimum: int, units: tuple[int, ...]) -> list[int]:
    """List the offsets at and next to the first, a middle and the last multiple of each unit.

    All are multiples of `minimum` and lie within 0 and `size`, which are both among them.
    """
    spots = {0, size}
    for unit in (minimum, *units):
        for middle in (0, unit, 2 * unit, align_up(size // 2, unit), align_down(size, unit)):
            spots.update((middle - minimum, middle, middle + minimum))
    return sorted({align_down(min(max(spot, 0), size), minimum) for spot in spots} | {size})


def ranges_between(spots: list[int]) -> Iterator[Range]:
    """Make every range that starts and ends at one of these offsets; none is empty."""
    for number, start in enumerate(spots):
        for end in spots[number + 1 :]:
            yield Range(start, end - start)
