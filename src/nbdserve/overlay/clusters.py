"""Which clusters of a copy-on-write device are the base's, which were written, which are zero.

Pure: it decides where each byte of a request comes from, and reads none. In memory a state is a
byte, so that runs are found and set by memcmp and memset; the memory is an anonymous mapping,
which costs nothing where nothing was ever written: 1 TiB in clusters of 64 KiB is 16 MiB of
address space, and as much memory as was touched.

One writer: the event loop.
"""

import enum
import mmap
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

__all__ = ["ClusterMap", "ClusterState", "Run", "spans"]

_SCAN = (16, 1 << 10)  # clusters looked at per step, then _CHUNK: most runs are short, some huge
_CHUNK = 1 << 16


class ClusterState(enum.IntEnum):
    """Where the bytes of a cluster are."""

    BASE = 0
    DATA = 1
    ZERO = 2


class Run(NamedTuple):
    """Neighbouring bytes of a request that are in the same place.

    Attributes:
        state: the place.
        at: where the run lies within the request, in bytes.
        length: its length in bytes.
    """

    state: ClusterState
    at: int
    length: int


_STATES = tuple(ClusterState)
_BYTE = tuple(bytes((state,)) for state in ClusterState)
_ALIKE = tuple(bytes((state,)) * _CHUNK for state in ClusterState)


class ClusterMap:
    """The state of every cluster, and which pages of states changed since they were last taken.

    Args:
        size: the device's, in bytes.
        cluster: bytes in a cluster; the last one of the device may be shorter.
        page: clusters in a page.
    """

    def __init__(self, size: int, cluster: int, page: int) -> None:
        self._size = size
        self._cluster = cluster
        self._page = page
        self._count = -(-size // cluster)
        # private: a shared mapping would take memory for pages that are only looked at
        self._states = mmap.mmap(-1, max(self._count, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANON)
        self._dirty: set[int] = set()

    def __getitem__(self, number: int) -> ClusterState:
        return _STATES[self._states[number]]

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        """Split a range by where its bytes are: contiguous, in order, neighbours differ."""
        cluster, end = self._cluster, offset + length
        number, stop = offset // cluster, -(-end // cluster)
        at = offset
        while at < end:
            state = self._states[number]
            number = self._run_end(number, stop, state)
            run_end = min(number * cluster, end)
            yield Run(_STATES[state], at - offset, run_end - at)
            at = run_end

    def state_around(self, offset: int, length: int) -> int | None:
        """Return the state (a number) of the one cluster that holds a range; None if several do.

        None as well for a range of no bytes where the device ends, which no cluster holds.
        """
        number = offset // self._cluster
        if number < self._count and offset + length <= (number + 1) * self._cluster:
            return self._states[number]
        return None

    def is_all(self, state: ClusterState, first: int, stop: int) -> bool:
        """Tell whether every cluster from `first` to before `stop` is in this state."""
        return first >= stop or (
            self._states[first] == state and self._run_end(first, stop, state) == stop
        )

    def has(self, state: ClusterState, first: int, stop: int) -> bool:
        """Tell whether any cluster from `first` to before `stop` is in this state."""
        return self._states.find(_BYTE[state], first, stop) >= 0

    def whole(self, offset: int, length: int) -> tuple[int, int]:
        """Return first and end of the clusters that lie entirely in a range.

        The last cluster of the device is whole where the device ends. If there are none, both
        numbers are equal.
        """
        end = offset + length
        first = -(-offset // self._cluster)
        stop = self._count if end == self._size else end // self._cluster
        return first, max(first, stop)

    def partials(self, offset: int, length: int) -> list[tuple[int, int]]:
        """Return offset and length of the parts of a range that are less than a cluster."""
        first, stop = self.whole(offset, length)
        end = offset + length
        if first == stop:  # within one cluster, or on both sides of one border
            border = min(max(first * self._cluster, offset), end)
            parts = [(offset, border), (border, end)]
        else:
            parts = [(offset, first * self._cluster), (stop * self._cluster, end)]
        return [(start, finish - start) for start, finish in parts if finish > start]

    def touched(self, offset: int, length: int) -> tuple[int, int]:
        """Return first and end of the clusters that a range touches; it is not empty."""
        return offset // self._cluster, -(-(offset + length) // self._cluster)

    def put(self, state: ClusterState, first: int, stop: int) -> None:
        """Set the clusters from `first` to before `stop`; only what changes becomes dirty."""
        for page in range(first // self._page, -(-stop // self._page)):
            start = max(first, page * self._page)
            end = min(stop, (page + 1) * self._page)
            if not self.is_all(state, start, end):
                self._states[start:end] = _BYTE[state] * (end - start)
                self._dirty.add(page)

    def load(self, page: int, states: bytes) -> None:
        """Set a whole page to what was stored; it is clean afterwards."""
        start = page * self._page
        end = min(start + self._page, self._count)
        self._states[start:end] = states[: end - start]

    @property
    def is_dirty(self) -> bool:
        """Whether anything changed since the pages were last taken."""
        return bool(self._dirty)

    def take_dirty(self) -> dict[int, bytes]:
        """Return the states of each changed page, and count them as clean."""
        taken = {}
        for page in sorted(self._dirty):
            start = page * self._page
            taken[page] = self._states[start : min(start + self._page, self._count)]
        self._dirty.clear()
        return taken

    def give_back(self, pages: Iterable[int]) -> None:
        """Count pages as changed again: they were taken but not stored."""
        self._dirty.update(pages)

    def _run_end(self, number: int, stop: int, state: int) -> int:
        """Return the end of the run of `state` that cluster `number` is in, at most `stop`."""
        number += 1
        for step in _SCAN:
            if number >= stop or self._states[number] != state:
                return number
            seen = self._states[number : min(number + step, stop)]
            number += len(seen) - len(seen.lstrip(_BYTE[state]))
        while number < stop and self._states[number] == state:
            seen = self._states[number : min(number + _CHUNK, stop)]
            # comparing is some ten times faster than stripping
            if seen == _ALIKE[state]:
                number += _CHUNK
            else:
                number += len(seen) - len(seen.lstrip(_BYTE[state]))
        return number


def spans(runs: Sequence[Run], gap: int) -> list[list[Run]]:
    """Group the BASE runs that are at most `gap` bytes apart, to be read from the base as one.

    A round trip to a remote base costs more than the few bytes between, which are read over.
    """
    groups: list[list[Run]] = []
    for run in runs:
        if run.state is not ClusterState.BASE:
            continue
        if groups and run.at - (groups[-1][-1].at + groups[-1][-1].length) <= gap:
            groups[-1].append(run)
        else:
            groups.append([run])
    return groups
