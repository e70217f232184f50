"""How long a step may wait: its own time, or what is left of the whole, whichever is less.

The end of the whole travels with the task (a context variable), so that a step deep below needs no
parameter for it, and a step that was begun under a deadline cannot outlive it.
"""

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar

__all__ = ["seconds_text", "time_left", "within"]

_whole: ContextVar[float | None] = ContextVar("whole", default=None)


@contextlib.contextmanager
def within(seconds: float | None) -> Iterator[None]:
    """Let everything inside end in so many seconds; None adds no limit, an outer one holds."""
    outer = _whole.get()
    end = outer if seconds is None else time.monotonic() + seconds
    token = _whole.set(end if outer is None or end is None else min(outer, end))
    try:
        yield
    finally:
        _whole.reset(token)


def time_left(step: float | None) -> float | None:
    """Return the seconds a step may take that would like `step`; None is without a limit."""
    end = _whole.get()
    if end is None:
        return step
    left = max(0.0, end - time.monotonic())
    return left if step is None else min(step, left)


def seconds_text(seconds: float | None) -> str:
    """Write how long was waited, as a message has it."""
    return "for ever" if seconds is None else f"{round(seconds, 1):g} s"
