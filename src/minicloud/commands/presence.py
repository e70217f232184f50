"""Whether a node answers, and waiting until it does or does no more."""

import asyncio
from typing import Final

from minicloud.commands.context import Context
from minicloud.errors import NodeError, Reason

__all__ = ["absence", "wait_until"]

_AGAIN: Final = 1.0  # seconds between two tries

# A node that says any of these things lives: somebody there took the connection and spoke.
_LIVING: Final = frozenset(
    {Reason.KEY_NEW, Reason.KEY_CHANGED, Reason.AUTH, Reason.SSH_LOST, Reason.NO_FORWARDING}
)


async def absence(context: Context, name: str) -> NodeError | None:
    """Try to reach a node anew; return why it does not answer, or None if it does.

    A node that answers and lets nobody in is there all the same.
    """
    await context.cluster.forget(name)
    try:
        await context.cluster.session(name)
    except NodeError as exc:
        return None if exc.reason in _LIVING else exc
    return None


async def wait_until(context: Context, name: str, *, is_there: bool, seconds: float) -> bool:
    """Wait until a node answers, or does no more; returns whether it came to that in time."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                if (await absence(context, name) is None) is is_there:
                    return True
                await asyncio.sleep(_AGAIN)
    except TimeoutError:
        return False
