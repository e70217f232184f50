"""Who reads in order: tells sequential readers from random ones, many of them at once.

It sees every request of every client and remembers the ranges that were asked for lately, joined
where they touch. A range that grew at its end request after request is a sequential reader; what
stands alone is a random one. So requests that overtake each other need no special care: what came
too early is a range of its own until the gap before it is filled, and is then joined to it.

Invariants: nothing here does I/O; memory is bounded (the range touched longest ago is forgotten);
a reader is offered at most what it has itself read in order, so whoever stops after a while, or
only looked as if, costs at most as much again.
"""

from bisect import bisect_left, bisect_right
from typing import Final

__all__ = ["Sequences"]

_STEPS: Final = 3  # one request after another happens by chance, three in a row seldom
_PIECES: Final = 8  # ranges remembered a reader: its own, and what has overtaken what lies between


class _Stretch:
    """A range that was asked for without a gap.

    Attributes:
        begin: its first byte.
        front: the byte after its last.
        steps: requests that made it longer at its end.
    """

    __slots__ = ("begin", "front", "steps")

    def __init__(self, begin: int) -> None:
        self.begin = begin
        self.front = begin
        self.steps = 0


class Sequences:
    """The sequential readers of one device.

    Args:
        streams: readers to keep apart, in order or not.
        slack: bytes by which requests of one reader may overtake each other.
        smallest: bytes to have ahead of a reader as soon as it is believed to go in order.
        largest: bytes to have ahead of it at most; in between it is what it has read in order.
        proof: bytes it must have read in order to be believed, in three requests at least;
            `smallest` if left out.
    """

    def __init__(
        self,
        *,
        streams: int = 32,
        slack: int,
        smallest: int,
        largest: int,
        proof: int | None = None,
    ) -> None:
        self._most = streams * _PIECES
        self._slack = slack
        self._smallest = smallest
        self._largest = largest
        self._proof = smallest if proof is None else proof
        self._stretches: dict[int, _Stretch] = {}  # by front; the one touched last is the last
        self._fronts: list[int] = []  # the same, in order of place

    def __len__(self) -> int:
        """Count the ranges remembered."""
        return len(self._stretches)

    def observe(self, offset: int, length: int) -> range:
        """Note a request, and tell what should be ahead of its reader now.

        Call it in the order in which requests arrive, for those too that are answered at once.

        Returns:
            The bytes that follow what the reader has asked for without a gap, to the end of what
            should be ahead; empty for a random reader. Requests that came early may lie within it.
            It can reach past the end of the device, which is not known here, but not into what
            another sequential reader went through: that reader has had it already.
        """
        end = offset + length
        if length == 0:
            return range(end, end)
        stretch = self._touch(offset, end)
        if not self._is_proven(stretch):
            proven = self._before(stretch)
            if proven is None:
                return range(end, end)
            stretch = proven
        return self._ahead(stretch)

    def _touch(self, offset: int, end: int) -> _Stretch:
        """Put a request to the stretch it belongs to, or make one of it."""
        stretch = self._stretches.get(offset) or self._around(offset, end)
        if stretch is None:
            stretch = _Stretch(offset)
        else:
            self._remove(stretch)
        if end > stretch.front:
            stretch.front = end
            stretch.steps += 1
        self._absorb(stretch, offset)
        self._stretches[stretch.front] = stretch
        self._fronts.insert(bisect_left(self._fronts, stretch.front), stretch.front)
        if len(self._stretches) > self._most:
            self._remove(next(iter(self._stretches.values())))
        return stretch

    def _around(self, offset: int, end: int) -> _Stretch | None:
        """Find the stretch that a request falls into near its front: it is late, or asks again.

        Far from the front it is not this reader's any more, but the beginning of another one.
        """
        index = bisect_right(self._fronts, offset)
        if index == len(self._fronts):
            return None
        found = self._stretches[self._fronts[index]]
        return found if found.begin <= offset and found.front - end <= self._slack else None

    def _absorb(self, stretch: _Stretch, offset: int) -> None:
        """Join what a stretch has come to touch: requests that had overtaken this one."""
        while (index := bisect_right(self._fronts, offset)) < len(self._fronts):
            other = self._stretches[self._fronts[index]]
            if other.front > stretch.front:
                touches = stretch.begin <= other.begin <= stretch.front
                if not touches or other.front > stretch.front + self._slack:
                    return
                stretch.front = other.front
                # not the sum: who reads backwards would be taken for a reader in order
                stretch.steps = max(stretch.steps, other.steps)
            self._remove(other)

    def _remove(self, stretch: _Stretch) -> None:
        del self._stretches[stretch.front]
        del self._fronts[bisect_left(self._fronts, stretch.front)]

    def _is_proven(self, stretch: _Stretch) -> bool:
        return stretch.steps >= _STEPS and stretch.front - stretch.begin >= self._proof

    def _before(self, stretch: _Stretch) -> _Stretch | None:
        """Find the reader in order, if there is one, whose next request this may be, come early."""
        for index in range(bisect_right(self._fronts, stretch.begin) - 1, -1, -1):
            front = self._fronts[index]
            if stretch.begin - front > self._slack:
                break
            found = self._stretches[front]
            if self._is_proven(found):
                return found
        return None

    def _ahead(self, stretch: _Stretch) -> range:
        """Measure off from a stretch's front; what came early is not counted."""
        front = at = stretch.front
        room = min(self._largest, max(self._smallest, front - stretch.begin))
        for index in range(bisect_right(self._fronts, front), len(self._fronts)):
            other = self._stretches[self._fronts[index]]
            gap = other.begin - at
            if not 0 <= gap < room:  # below 0: a reader that passed here long ago, far from here
                break
            if other.front > front + self._slack and self._is_proven(other):
                return range(front, other.begin)
            room -= gap
            at = other.front
        return range(front, at + room)
