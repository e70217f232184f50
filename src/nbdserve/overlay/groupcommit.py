"""Group commit: however many wait for durability, one commit at a time serves them all.

A caller is served by a commit that starts after it asked. While one runs, those who ask gather
for the next, so a hundred writers with FUA cost two commits, not a hundred.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable

from nbdserve.device import Done
from nbdserve.errors import DeviceError

__all__ = ["GroupCommit"]


class GroupCommit:
    """Calls `commit` for groups of callers. One task, held here, and only while there is work.

    Args:
        commit: makes durable everything done before it is called.
    """

    def __init__(self, commit: Callable[[], Awaitable[None]]) -> None:
        self._commit = commit
        self._gathered: list[Done] = []
        self._task: asyncio.Task[None] | None = None

    def add(self, done: Done) -> None:
        """Call `done` when everything done before this call is durable, or with what went wrong.

        It is called on the event loop, never from within this call.
        """
        self._gathered.append(done)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def __call__(self) -> None:
        """Return when everything done before this call is durable.

        Cancelling stops the waiting only.

        Raises:
            Exception: what the commit raised, to each caller it was to serve.
        """
        served = asyncio.get_running_loop().create_future()
        self.add(functools.partial(_tell, served))
        await served

    async def close(self) -> None:
        """Wait until the commit under way, if any, has ended."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        try:
            while self._gathered:
                group, self._gathered = self._gathered, []
                await self._serve(group)
        finally:
            self._task = None

    async def _serve(self, group: list[Done]) -> None:
        error: Exception | None = None
        try:
            await self._commit()
        except asyncio.CancelledError:
            error = DeviceError("the server ends before it was made durable")
            raise
        except Exception as exc:  # noqa: BLE001 -- it is told to each it concerns
            error = exc
        finally:
            for done in group:
                done(error)


def _tell(served: asyncio.Future[None], error: Exception | None) -> None:
    if served.done():  # cancelled: nobody waits
        return
    if error is None:
        served.set_result(None)
    else:
        served.set_exception(error)
