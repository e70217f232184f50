"""Turns at the cores: decoding in steps, those first whose readers wait.

A block is decoded in short steps, so that a block somebody waits for overtakes one that is loaded
ahead at the next step and not at the next block. As many steps run at once as there are cores.

Invariant: a step that has begun is waited for, even when its caller is cancelled: it writes to
buffers that the caller gives back then.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from nbdserve.threads import cpu_pool

__all__ = ["Turns", "end_of"]

T = TypeVar("T")


class Turns:
    """At most `count` steps at once, the urgent before the others, else in order.

    Args:
        count: steps at once; the pool they run in has a thread a core.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._queue: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    async def run(self, step: Callable[[], T], *, urgent: Callable[[], bool]) -> T:
        """Run a step in the pool when it is its turn.

        Args:
            step: what takes a core for a while.
            urgent: tells whether somebody waits for it; asked again whenever a core is free, for
                a reader may come while the step waits behind others without end.

        Raises:
            asyncio.CancelledError: the step has not begun, or has ended.
        """
        await self._enter(urgent)
        try:
            begun = cpu_pool().submit(step)
            work = asyncio.wrap_future(begun)
            try:
                await asyncio.wait((work,))
            except asyncio.CancelledError:
                if not begun.cancel():  # it is running
                    await end_of(work)
                raise
            return work.result()
        finally:
            self._leave()

    async def _enter(self, urgent: Callable[[], bool]) -> None:
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._queue.append((urgent, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()  # it was given the turn and cannot use it
            raise

    def _leave(self) -> None:
        self._queue = [waiting for waiting in self._queue if not waiting[1].done()]
        if not self._queue:
            self._free += 1
            return
        first = next((at for at, (urgent, _) in enumerate(self._queue) if urgent()), 0)
        _, turn = self._queue.pop(first)
        turn.set_result(None)


async def end_of(work: "asyncio.Future[T]") -> None:
    """Wait for the end of something, whatever comes of it and however often that is cancelled.

    Raises:
        asyncio.CancelledError: it was cancelled meanwhile; the end has come all the same.
    """
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait((work,))
        except asyncio.CancelledError as exc:
            cancelled = exc
    if not work.cancelled():
        work.exception()
    if cancelled is not None:
        raise cancelled
