"""How long a connection waits for its next request on the spot before it goes back to the loop.

A client at depth 1 sends its next request some microseconds after it was answered. Trying the
socket again meanwhile costs a microsecond a try; going through epoll costs several, and if the
core falls asleep, tens. But a try is in vain if the client thinks, or if it needs this very core
to get anywhere. So patience is earned: a hit restores it, misses in a row use it up, and once it is
gone only one turn in `_PROBE` waits, to find out whether that would pay again.
"""

import os
from typing import ClassVar

__all__ = ["Patience"]

_TRIES = 24  # at about 1 us each: twice what fio needs between an answer and its next request
_MISSES = 4
_PROBE = 64


class Patience:
    """The patience of one connection. It never makes another one wait that was just served."""

    _latest: ClassVar["Patience | None"] = None
    _cores: ClassVar[int] = len(os.sched_getaffinity(0))

    __slots__ = ("_misses", "_turns")

    def __init__(self) -> None:
        self._misses = 0
        self._turns = 0

    @property
    def is_alone(self) -> bool:
        """Whether no other connection received anything since this one last did."""
        return Patience._latest is self

    def tries(self) -> int:
        """Return how often to try the socket again now that something was received and served."""
        alone, Patience._latest = self.is_alone, self
        if not alone or self._cores < 2:
            return 0
        if self._misses < _MISSES:
            return _TRIES
        self._turns += 1
        return 0 if self._turns % _PROBE else _TRIES

    def learn(self, *, hit: bool) -> None:
        """Take in whether anything came while it was waited for."""
        self._misses = 0 if hit else self._misses + 1
