"""Group commit: however many wait for durability, one commit at a time serves them all.

A caller is served by a commit that starts after it asked. While one runs, those who ask gather
for the next, so a hundred writers with FUA cost two commits, not a hundred.
"""

import asyncio
from collections.abc import Awaitable, Callable

__all__ = ["GroupCommit"]


class GroupCommit:
    """Calls `commit` for groups of callers. One task, held here, and only while there is work.

    Args:
        commit: makes durable everything done before it is called.
    """

    def __init__(self, commit: Callable[[], Awaitable[None]]) -> None:
        self._commit = commit
        self._gathering: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    async def __call__(self) -> None:
        """Return when everything done before this call is durable.

        Cancelling stops the waiting only.

        Raises:
            Exception: what the commit raised, to each caller it was to serve.
        """
        if self._gathering is None:
            self._gathering = asyncio.get_running_loop().create_future()
            # every caller may be cancelled; then nobody is left to be told of a failure
            self._gathering.add_done_callback(
                lambda served: served.cancelled() or served.exception()
            )
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        await asyncio.shield(self._gathering)

    async def close(self) -> None:
        """Wait until the commit under way, if any, has ended."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        try:
            while self._gathering is not None:
                served, self._gathering = self._gathering, None
                await self._serve(served)
        finally:
            self._task = None

    async def _serve(self, served: asyncio.Future[None]) -> None:
        try:
            await self._commit()
        except asyncio.CancelledError:
            served.cancel()
            raise
        except Exception as exc:  # noqa: BLE001 -- it is raised in each caller
            served.set_exception(exc)
        else:
            served.set_result(None)
