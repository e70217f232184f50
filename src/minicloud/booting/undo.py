"""Steps to take back, the last one first, when a command fails, is interrupted or out of time.

A step says how it is undone once it may have happened, so that nothing is left half made. What is
being undone is not interrupted again: a second signal waits, as the steps are short and bounded.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from minicloud.errors import MinicloudError

__all__ = ["Undo", "unbroken"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_EACH: Final = 30.0  # seconds one step back may take


class Undo:
    """An async context manager that undoes what was told to it, if its block raises."""

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], Awaitable[object]]]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            await self.take_back()

    def by(self, what: str, step: Callable[[], Awaitable[object]]) -> None:
        """Take note of how the step that is done, or about to be, is undone.

        Args:
            what: it removes, for whoever has to do it by hand.
            step: does it; no error where there is nothing to do.
        """
        self._steps.append((what, step))

    async def take_back(self) -> None:
        """Undo all that was told; what cannot be undone is logged for whoever has to do it."""
        await unbroken(self._take_back())

    async def _take_back(self) -> None:
        while self._steps:
            what, step = self._steps.pop()
            try:
                async with asyncio.timeout(_EACH):
                    await step()
            except TimeoutError:
                self._leave(what, f"it could not be removed in {_EACH:g} s")
            except MinicloudError as exc:
                self._leave(what, str(exc))
            except Exception as exc:  # a bug in one step must not keep the others
                logger.exception("unexpected step=%s", what)
                self._leave(what, f"{type(exc).__name__}: {exc}; a bug: report it")

    def _leave(self, what: str, why: str) -> None:
        logger.error("%s is left behind: %s", what, why)


async def unbroken(work: Coroutine[Any, Any, T]) -> T:
    """Await to the end what must not stop half-way; a cancellation is raised after that."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                continue  # the first one is raised below
        if not task.cancelled():
            task.exception()  # it would be said to have been lost; the cancellation goes before
        raise
