"""Where decoded blocks hold zeroes: learnt as they are decoded, kept for block status.

A block's runs are a few numbers; a run shorter than a grain, or off the 4 KiB grid at either end,
is cut or left out, since nobody skips it and every extent costs the client a look. There may be
millions of blocks: one that has no runs takes no memory.
"""

from array import array
from collections.abc import Iterable, Iterator
from typing import Final

from nbdserve.extents import DATA, ZERO_HOLE, Extent
from nbdserve.ranges import align_down, align_up

__all__ = ["SHORTEST", "ZeroRuns"]

SHORTEST: Final = 64 << 10
"""Bytes: a run that is worth telling; blocks smaller than this have none."""

_GRID: Final = 4 << 10


class ZeroRuns:
    """The runs of zeroes of each block, in bytes of the image."""

    def __init__(self) -> None:
        self._runs: dict[int, array[int]] = {}

    def add(self, block: int, runs: Iterable[tuple[int, int]]) -> None:
        """Add runs (start, end) of a block, in order, after those known of it."""
        known = self._runs.get(block) or array("Q")
        for start, end in runs:
            if known and known[-1] == start:
                known[-1] = end
            elif not known or start > known[-1]:
                known.extend((start, end))
        if known:
            self._runs[block] = known

    def forget(self, block: int) -> None:
        """Forget what is known of a block."""
        self._runs.pop(block, None)

    def extents(self, block: int, start: int, end: int) -> Iterator[Extent]:
        """Describe a range of the image that lies within one block."""
        at = start
        known = self._runs.get(block, ())
        for first, last in zip(known[::2], known[1::2], strict=True):
            begin = max(align_up(first, _GRID), at)
            stop = min(align_down(last, _GRID), end)
            if last - first < SHORTEST or stop <= begin:
                continue
            yield Extent(begin - at, DATA)
            yield Extent(stop - begin, ZERO_HOLE)
            at = stop
        yield Extent(end - at, DATA)
