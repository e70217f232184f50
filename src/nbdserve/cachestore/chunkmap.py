"""Which chunks of an image are at hand, which are known to be zero, and when they were last used.

Pure: no file is touched here. In memory a chunk is a byte and a group of chunks eight more, in
anonymous mappings, which cost nothing where nothing was ever cached.

One writer: the event loop.
"""

import enum
import mmap
from collections.abc import Collection, Iterator
from itertools import groupby
from typing import Final, NamedTuple

__all__ = ["GROUP", "MAX_CHUNKS", "ChunkMap", "ChunkState", "StateRun"]

GROUP: Final = 16
"""Chunks in a group, the unit of eviction: 1 MiB by default, one hole to punch."""

MAX_CHUNKS: Final = 1 << 28
"""16 TiB in chunks of 64 KiB."""

_PAGE: Final = 1 << 16  # chunks looked at together, a multiple of GROUP
_NOTHING: Final = bytes(_PAGE)


class ChunkState(enum.IntEnum):
    """What is known of a chunk; the first two and the last have the numbers of the map's records.

    Attributes:
        ABSENT: it must be read from below.
        CLAIMED: the map says that the cache file holds it; not verified yet.
        DATA: the cache file holds it.
        ZERO: it is zero, and takes no room.
    """

    ABSENT = 0
    CLAIMED = 1
    DATA = 2
    ZERO = 3


class StateRun(NamedTuple):
    """Neighbouring bytes in the same state, from `offset` of the image on."""

    state: ChunkState
    offset: int
    length: int


_STATES: Final = tuple(ChunkState)
_STORED: Final = (ChunkState.CLAIMED, ChunkState.DATA)


class ChunkMap:
    """The states of all chunks of an image.

    Attributes:
        count: number of chunks.
        states: a byte each, see `ChunkState`; change them by `put` alone.
        used: for each group when it was last used, in milliseconds since 1970; 0 if not known.
        groups: the groups that take room, and how many of their chunks do.
        stored: how many chunks take room.
        zeroes: how many chunks are ZERO.
    """

    def __init__(self, size: int, chunk: int) -> None:
        self._size = size
        self._chunk = chunk
        self.count = -(-size // chunk)
        # private: a shared mapping would take memory for pages that are only looked at
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANON
        self.states = mmap.mmap(-1, max(self.count, 1), flags=flags)
        self.used = memoryview(
            mmap.mmap(-1, 8 * max(-(-self.count // GROUP), 1), flags=flags)
        ).cast("Q")
        self.groups: dict[int, int] = {}
        self.stored = 0
        self.zeroes = 0

    def load(self, states: bytes) -> None:
        """Take over the states of all chunks, when the map is new."""
        for start in range(0, self.count, _PAGE):
            page = states[start : min(start + _PAGE, self.count)]
            if page == _NOTHING[: len(page)]:
                continue
            self.states[start : start + len(page)] = page
            self.zeroes += page.count(ChunkState.ZERO)
            for at in range(0, len(page), GROUP):
                group = page[at : at + GROUP]
                stored = sum(map(group.count, _STORED))
                if stored:
                    self.groups[(start + at) // GROUP] = stored
                    self.stored += stored

    def put(self, number: int, state: ChunkState) -> None:
        """Set the state of a chunk."""
        before = self.states[number]
        self.states[number] = state
        change = (state in _STORED) - (before in _STORED)
        self.zeroes += (state == ChunkState.ZERO) - (before == ChunkState.ZERO)
        self.stored += change
        if change:
            group = number // GROUP
            left = self.groups.get(group, 0) + change
            if left:
                self.groups[group] = left
            else:
                del self.groups[group]

    def take_out(self, groups: Collection[int]) -> list[int]:
        """Set the chunks of groups that take room to ABSENT; return their numbers."""
        numbers = [
            number
            for group in groups
            for number in range(group * GROUP, min((group + 1) * GROUP, self.count))
            if self.states[number] in _STORED
        ]
        for number in numbers:
            self.put(number, ChunkState.ABSENT)
        return numbers

    def zero(self, first: int, stop: int) -> list[int]:
        """Set the ABSENT ones of some chunks to ZERO; return their numbers."""
        numbers = [n for n in range(first, stop) if self.states[n] == ChunkState.ABSENT]
        for number in numbers:
            self.put(number, ChunkState.ZERO)
        return numbers

    def length_of(self, number: int) -> int:
        """Return the bytes in a chunk: the last one may be shorter."""
        return min(self._chunk, self._size - number * self._chunk)

    def is_ready(self, offset: int, length: int) -> bool:
        """Tell whether a range can be served without reading from below or verifying."""
        first, stop = offset // self._chunk, -(-(offset + length) // self._chunk)
        found = self.states[first:stop]
        return found.count(ChunkState.DATA) + found.count(ChunkState.ZERO) == stop - first

    def runs(self, offset: int, length: int) -> Iterator[StateRun]:
        """Split a range by state: contiguous, in order, neighbours differ but at page borders."""
        end = offset + length
        while offset < end:
            first = offset // self._chunk
            stop = min(-(-end // self._chunk), first + _PAGE)
            for state, same in groupby(self.states[first:stop]):
                first += sum(1 for _ in same)
                until = min(first * self._chunk, end)
                yield StateRun(_STATES[state], offset, until - offset)
                offset = until

    def absent_from(self, number: int) -> int:
        """Return the first absent chunk from `number` on, `count` if there is none."""
        found = self.states.find(b"\0", number, self.count)
        return self.count if found < 0 else found

    def last_uses(self) -> dict[int, int]:
        """Tell when the groups that take room were last used, in seconds since 1970."""
        return {group: self.used[group] // 1000 for group in self.groups}

    def stored_groups(self, without: Collection[int]) -> list[tuple[int, int]]:
        """List the groups that take room, but for some, and the bytes of their chunks."""
        return [
            (group, chunks * self._chunk)
            for group, chunks in self.groups.items()
            if group not in without
        ]
