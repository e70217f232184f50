"""Turns at a machine that several benchmarks share: a lock, held for some trials and passed on."""

import fcntl
import time
from pathlib import Path
from typing import IO

__all__ = ["Turns"]

_TURN = 100  # seconds after which no further trial is begun in the same turn


class Turns:
    """Holds a lock of a file from `take` on, until `leave`, or `offer` after a while.

    Args:
        path: the file; None for a machine that is ours alone.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: IO[str] | None = None
        self._since = 0.0

    def take(self) -> None:
        """Wait for a turn, unless it is ours."""
        if self._path is None or self._file is not None:
            return
        self._file = self._path.open("a")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._since = time.monotonic()

    def offer(self) -> None:
        """End the turn if it has been long enough."""
        if time.monotonic() > self._since + _TURN:
            self.leave()

    def leave(self) -> None:
        """End the turn, if it is ours."""
        if self._file is not None:
            self._file.close()
            self._file = None
