"""How far a long work has come: counted by many threads, looked at by one."""

import threading

__all__ = ["Progress"]


class Progress:
    """Counts bytes that are done.

    Attributes:
        total: how many there are.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._done = 0
        self._lock = threading.Lock()  # an addition is three steps, and threads may come between

    @property
    def done(self) -> int:
        """How many bytes are done."""
        return self._done

    def advance(self, length: int) -> None:
        """Count `length` more; from any thread."""
        with self._lock:
            self._done += length
