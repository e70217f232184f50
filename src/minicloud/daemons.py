"""Threads for calls that cannot be cancelled: nothing ever waits for one that is stuck.

The executors of the standard library are joined when the interpreter ends, so that one call that
hangs in C keeps the whole program. These are daemon threads: their work is waited for as long as
somebody wants its outcome, and not a moment longer.

Invariant: what a call left behind (its closure, the locals of the frames it failed in) is let go
of in its own thread. libvirt's objects make calls when they die, and may die nowhere else.
"""

import asyncio
import contextlib
import queue
import threading
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["Daemons"]

T = TypeVar("T")

_Item = tuple[Callable[[], Any], asyncio.Future[Any]]


class Daemons:
    """A few threads that are made when they are needed.

    Args:
        name: of the threads.
        most: so many at once; further work waits its turn.
    """

    def __init__(self, name: str, most: int = 8) -> None:
        self._name = name
        self._most = most
        self._threads = 0
        self._busy = 0  # calls handed over and not done; written on the loop's thread alone
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()

    def submit(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Have the work done; cancelling the future abandons it, the thread goes on."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._busy += 1
        if self._busy > self._threads and self._threads < self._most:
            self._threads += 1
            thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            thread.start()
        self._queue.put((work, future))
        return future

    def end(self) -> None:
        """Let each thread leave after what it is doing; what was submitted before is still done."""
        for _ in range(self._threads):
            self._queue.put(None)
        self._threads = 0

    def _serve(self) -> None:
        while (item := self._queue.get()) is not None:
            work, future = item
            del item
            value, error = _outcome(work)
            del work
            with contextlib.suppress(RuntimeError):  # the loop has ended; nobody waits
                future.get_loop().call_soon_threadsafe(self._done, future, value, error)
            del value, error, future

    def _done(self, future: asyncio.Future[Any], value: Any, error: Exception | None) -> None:
        self._busy -= 1
        if future.done():  # abandoned
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)


def _outcome(work: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return work(), None
    except Exception as exc:  # noqa: BLE001 -- it is raised where the outcome is waited for
        _empty(exc)
        return None, exc


def _empty(exc: BaseException) -> None:
    """Drop the locals of the frames that an exception and those behind it hold."""
    link: BaseException | None = exc
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
