"""Group commit: one sync at a time, shared by all who asked before it began.

A sync that begins after a request for it came in covers that request. So while one is under way,
all further requests can wait for the same next one: at any queue depth at most two syncs stand
between a request and its answer, and writes with FUA cost one fdatasync a group, not one each.

Invariant: `commit` returns only if a sync that began after it was called has succeeded.
"""

import asyncio
from collections.abc import Awaitable, Callable

__all__ = ["Commits"]


class Commits:
    """Shares the runs of `sync` among those who ask for it at the same time.

    Args:
        sync: makes everything durable that was written before it was called, or raises.
    """

    def __init__(self, sync: Callable[[], Awaitable[None]]) -> None:
        self._sync = sync
        self._turn = asyncio.Lock()
        self._begun = 0
        self._done = 0

    async def commit(self) -> None:
        """Make everything durable that was written before this call.

        Raises what `sync` raises to the one caller that ran it; the others who waited run their
        own. May be cancelled: the others are not affected.
        """
        wanted = self._begun + 1
        async with self._turn:
            if self._done >= wanted:
                return
            self._begun = number = self._begun + 1
            await self._sync()
            self._done = number
