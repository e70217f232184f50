"""Which blocks are corrupt: remembered for a few seconds.

A client that tries every sector of such a block would else fetch and decode it thousands of times;
for ever would be too long, since the bytes may have been damaged on their way.
"""

import asyncio
from typing import Final

from nbdserve.errors import CorruptDataError

__all__ = ["BAD_SECONDS", "CorruptBlocks"]

BAD_SECONDS: Final = 10.0
"""How long a corrupt block is refused without another look at it."""

_KEPT = 1024


class CorruptBlocks:
    """The blocks found to be corrupt a moment ago."""

    def __init__(self) -> None:
        self._bad: dict[int, tuple[float, str]] = {}  # until when, and why

    def found(self, number: int, exc: CorruptDataError) -> None:
        """Remember that a block is corrupt."""
        if len(self._bad) >= _KEPT:
            self._bad.clear()
        self._bad[number] = (asyncio.get_running_loop().time() + BAD_SECONDS, str(exc))

    def forget(self) -> None:
        """Have every block looked at again."""
        self._bad.clear()

    def refuse(self, number: int) -> None:
        """Raise if a block is corrupt as far as is known.

        Raises:
            CorruptDataError: with what it was found to be.
        """
        bad = self._bad.get(number)
        if bad is None:
            return
        until, why = bad
        if asyncio.get_running_loop().time() < until:
            raise CorruptDataError(why)
        del self._bad[number]
