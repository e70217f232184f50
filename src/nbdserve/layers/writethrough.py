"""Writes through a layer that keeps what it read.

Invariants: a write that has begun runs to its end, whoever still waits for it, for only its end
tells when what was kept is certainly stale; what it touched is forgotten then, before the writer is
told. So once a write is answered, no read that begins then gets what was there before.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

__all__ = ["WriteThrough"]


class WriteThrough:
    """The writes under way to the device beneath.

    Args:
        forget: drops whatever is kept, or on its way to be, of a range of bytes (offset, length).
    """

    def __init__(self, forget: Callable[[int, int], None]) -> None:
        self._forget = forget
        self._writing: set[asyncio.Task[None]] = set()

    async def carry(self, offset: int, length: int, change: Coroutine[Any, Any, None]) -> None:
        """Carry a write of a range out.

        Raises:
            DeviceError: what `change` raises.
        """
        task = asyncio.get_running_loop().create_task(change)
        self._writing.add(task)
        task.add_done_callback(partial(self._written, offset, length))
        await asyncio.wait((task,))
        task.result()

    async def close(self) -> None:
        """Wait for the writes that nobody waits for any more."""
        if self._writing:
            await asyncio.wait(self._writing)

    def _written(self, offset: int, length: int, task: asyncio.Task[None]) -> None:
        self._writing.discard(task)
        # after the write, not before it: a read that began meanwhile may have seen either
        self._forget(offset, length)
        if not task.cancelled():
            task.exception()  # told to the writer; if that was cancelled, to nobody
