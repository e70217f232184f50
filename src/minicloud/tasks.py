"""Work that several wait for: begun once, its outcome kept, whoever else asks for it."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["Shared"]

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Shared(Generic[K, T]):
    """Outcomes by key; a failure is an outcome too, until it is forgotten.

    It owns its tasks: `end` cancels those still under way. One who waits and is cancelled leaves
    the work to those who wait with him; the last one to leave takes it along. Work that is
    forgotten while somebody waits for it goes on for them.
    """

    def __init__(self) -> None:
        self._tasks: dict[K, asyncio.Task[T]] = {}
        self._forgotten: list[asyncio.Task[T]] = []  # while they were under way
        self._waiting: Counter[asyncio.Task[T]] = Counter()

    async def get(self, key: K, make: Callable[[], Awaitable[T]]) -> T:
        """Return the outcome, beginning the work if nobody has."""
        task = self._tasks.get(key)
        if task is None or task.cancelled():
            task = self._tasks[key] = asyncio.create_task(_made(make), name=f"shared {key}")
        self._waiting[task] += 1
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if self._waiting[task] == 1 and not task.done():
                task.cancel()
            raise
        finally:
            self._waiting[task] -= 1
            if not self._waiting[task]:
                del self._waiting[task]

    def peek(self, key: K) -> T | None:
        """Return what is there already, None where it failed or is not done."""
        task = self._tasks.get(key)
        if task is None or not task.done() or task.cancelled() or task.exception():
            return None
        return task.result()

    def forget(self, key: K) -> T | None:
        """Let the next one begin anew; returns what was there, for the caller to close.

        What is still under way then is not: `end` gives it.
        """
        value = self.peek(key)
        task = self._tasks.pop(key, None)
        if task is not None and not task.done():
            self._forgotten.append(task)
        return value

    async def end(self) -> list[T]:
        """Cancel what is under way; returns all that was made, for the caller to close."""
        tasks = [*self._tasks.values(), *self._forgotten]
        self._tasks.clear()
        self._forgotten.clear()
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        return [value for value in outcomes if not isinstance(value, BaseException)]


async def _made(make: Callable[[], Awaitable[T]]) -> T:
    return await make()
