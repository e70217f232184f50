"""A blocking call that is waited for even when its caller is cancelled.

A cancelled `run_io` leaves its thread running. That is right for a read whose buffer is dropped,
and wrong for a write, which could land on top of a later one, and for an open, whose descriptor
and lock nobody would ever release.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from nbdserve.threads import io_pool

__all__ = ["run_unbroken"]

T = TypeVar("T")


async def run_unbroken(
    call: Callable[..., T], *args: object, undo: Callable[[T], object] | None = None
) -> T:
    """Run a blocking call in the I/O pool; when cancelled, wait for its end, then raise.

    Args:
        call: what blocks.
        args: its arguments.
        undo: called with the result if the caller was cancelled, and so never gets it.
    """
    running = asyncio.get_running_loop().run_in_executor(io_pool(), call, *args)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            try:
                await asyncio.wait({running})
            except asyncio.CancelledError:
                continue  # the first one is raised below
        if running.exception() is None and undo is not None:
            undo(running.result())
        raise
