"""Who reads block after block: told from the blocks asked for lately. Pure."""

from collections import deque
from typing import Final

__all__ = ["Order"]

_RECENT: Final = 16  # enough to recognise four readers, each going in order


class Order:
    """The blocks asked for last."""

    def __init__(self) -> None:
        self._recent: deque[int] = deque(maxlen=_RECENT)

    def note(self, number: int) -> bool:
        """Note that a block is asked for; tell whether the two before it were, lately, as well."""
        in_order = number - 1 in self._recent and number - 2 in self._recent
        if number not in self._recent:
            self._recent.append(number)
        return in_order

    def is_passed(self, number: int) -> bool:
        """Tell whether a block's readers, going in order, are through with it."""
        return number + 1 in self._recent or number not in self._recent
