"""Packed bytes on their way before anybody decodes them, so that a slow link is never idle.

Decoded blocks are too large to have many of them ahead of a reader. Packed ones are small: those
that follow are fetched into memory, in order, as long as the link has little else to bring, and
handed to whoever decodes them.

Invariants: what is held is at most `limit` bytes, of a block that has no room only its beginning;
what was begun is dropped, its bytes fetched in vain, only when others need the room and its readers
have turned away.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from nbdserve.xzengine.intake import Intake

__all__ = ["PackedAhead"]

_LITTLE: Final = 1 << 20  # bytes still to come: two round trips of 40 ms at 100 Mbit/s
_STREAMS: Final = 3  # at once, where blocks are short; a host is asked for 4 at first: one is left


class PackedAhead:
    """Blocks whose packed bytes are fetched ahead.

    Args:
        limit: bytes of memory for them.
        length: tells the packed bytes of a block.
        make: makes the intake of a block, to hold so many bytes.
    """

    def __init__(
        self, limit: int, length: Callable[[int], int], make: Callable[[int, int], Intake]
    ) -> None:
        self._limit = limit
        self._length = length
        self._make = make
        self._intakes: dict[int, Intake] = {}  # not taken yet, the first begun first
        self._held: dict[int, int] = {}  # bytes of memory for each of them
        self._taken: list[Intake] = []  # of which bytes lie there still
        self._live: list[Intake] = []  # these and those of others, while the link is on them
        self._wanted: list[int] = []  # the next one last
        self._is_passed: Callable[[int], bool] = bool
        self._ending: set[asyncio.Task[None]] = set()

    def __contains__(self, number: int) -> bool:
        """Tell whether a block was begun and not taken yet."""
        return number in self._intakes

    async def close(self) -> None:
        """End what is under way."""
        self._wanted.clear()
        for number in list(self._intakes):
            self._drop(number)
        await asyncio.gather(*self._ending, return_exceptions=True)

    def want(self, numbers: Iterable[int], is_passed: Callable[[int], bool]) -> None:
        """Say which blocks will be asked for next, in order, in place of what was said before.

        Args:
            numbers: the blocks.
            is_passed: tells of a block that was begun whether its readers have turned away.
        """
        self._wanted = [number for number in numbers if number not in self._intakes]
        self._wanted.reverse()
        self._is_passed = is_passed
        self.move_on()

    def take(self, number: int) -> Intake | None:
        """Hand over a block that was begun; the caller closes it. None if it was not, or failed."""
        if number in self._wanted:
            self._wanted.remove(number)
        if number not in self._intakes:
            return None
        if self._intakes[number].failed:  # a while ago, maybe; the caller's own try tells
            self._drop(number)
            return None
        intake = self._pop(number)
        self._taken.append(intake)
        return intake

    def watch(self, intake: Intake) -> Intake:
        """Count what somebody else fetches as well."""
        self._live.append(intake)
        return intake

    def move_on(self) -> None:
        """Begin the next blocks if the link is about to be idle.

        To be called whenever bytes came, or were taken.
        """
        while self._wanted:
            self._live = [intake for intake in self._live if intake.missing]
            left = sum(intake.missing for intake in self._live)
            if left >= _LITTLE or len(self._live) >= _STREAMS:
                return
            length = self._length(self._wanted[-1])
            room = self._room(length)
            if room <= 0 or room < min(length, self._limit // 2):
                return
            self._start(self._wanted.pop(), min(length, room))

    def _start(self, number: int, room: int) -> None:
        self._held[number] = room
        self._intakes[number] = self.watch(self._make(number, room))
        self._intakes[number].start()

    def _room(self, wanted: int) -> int:
        self._taken = [intake for intake in self._taken if intake.lying]
        free = self._limit - sum(intake.lying for intake in self._taken)
        for number in list(self._intakes):
            if free - sum(self._held.values()) < wanted and self._is_passed(number):
                self._drop(number)
        return free - sum(self._held.values())

    def _drop(self, number: int) -> None:
        task = asyncio.get_running_loop().create_task(self._pop(number).close())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _pop(self, number: int) -> Intake:
        del self._held[number]
        return self._intakes.pop(number)
