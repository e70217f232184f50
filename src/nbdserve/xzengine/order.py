"""Who reads block after block: told from the blocks asked for lately. Pure.

Clients skip holes, so blocks that hold nothing but zeroes do not count: the block after a hole
follows the one before it. Who goes in order enters a block at its beginning, give or take what
overtakes what lies before it; a guest that boots jumps into the middle of neighbours, and what is
fetched ahead of it may be fetched in vain.
"""

from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice, takewhile
from typing import Final

__all__ = ["Order"]

_RECENT: Final = 16  # enough to recognise four readers, each going in order
_REACH: Final = 256  # blocks of zeroes that are looked past


class Order:
    """The blocks asked for last.

    Args:
        blocks: how many there are.
        is_empty: tells of a block whether it is known to hold zeroes only.
    """

    def __init__(self, blocks: int, is_empty: Callable[[int], bool]) -> None:
        self._blocks = blocks
        self._is_empty = is_empty
        self._recent: deque[int] = deque(maxlen=_RECENT)
        self._entered: deque[int] = deque(maxlen=_RECENT)  # those asked for from their beginning

    def note(self, number: int, *, at_start: bool) -> int:
        """Note that a block is asked for; tell how many in a row before it were so lately.

        Args:
            number: the block.
            at_start: whether near its beginning; a block that never was counts as none.
        """
        if number not in self._recent:
            self._recent.append(number)
        if at_start and number not in self._entered:
            self._entered.append(number)
        if number not in self._entered:
            return 0
        before = takewhile(self._entered.__contains__, self._from(number, -1))
        return sum(1 for _ in before)

    def after(self, number: int, count: int) -> list[int]:
        """Name the next `count` blocks, as far as there are so many near by."""
        return list(islice(self._from(number, 1), count))

    def is_passed(self, number: int) -> bool:
        """Tell whether a block's readers, going in order, are through with it."""
        if number not in self._recent:
            return True
        following = self.after(number, 1)
        return bool(following) and following[0] in self._recent

    def is_expected(self, number: int, within: int) -> bool:
        """Tell whether one of so many blocks before it was asked for lately."""
        return any(block in self._recent for block in islice(self._from(number, -1), within))

    def _from(self, number: int, step: int) -> Iterator[int]:
        end = self._blocks if step > 0 else -1
        for other in islice(range(number + step, end, step), _REACH):
            if not self._is_empty(other):
                yield other
