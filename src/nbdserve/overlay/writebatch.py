"""Writes that were begun together, carried out by one job in an I/O thread.

A hop into a thread and back costs more than a small write into the page cache, and a write may
block (a dirty limit, a cold partial page), so the event loop cannot make it itself. All writes that
begin in one turn of the loop share a hop; those that are to be durable share the sync after it.

A job takes at most `_JOB` bytes, so that a small write does not wait for all large ones before it,
and `_JOBS` run at once: more would only queue in the kernel for the same file.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from nbdserve.device import Done
from nbdserve.threads import io_pool

__all__ = ["WriteBatch"]

_JOB = 1 << 20
_JOBS = 2


class _Write(NamedTuple):
    offset: int
    data: memoryview
    fua: bool
    done: Done


class WriteBatch:
    """The writes of a file that were begun and not yet carried out. One event loop.

    Args:
        write: writes all of a buffer, or raises; blocks, and is called in threads.
        commit: has every write that has returned made durable, and tells the one it is given;
            None: `fua` is never asked for.
    """

    def __init__(
        self,
        write: Callable[[int, memoryview], None],
        commit: Callable[[Done], None] | None,
    ) -> None:
        self._write = write
        self._commit = commit
        self._gathered: deque[_Write] = deque()
        self._start: asyncio.Handle | None = None
        self._jobs: set[asyncio.Future[list[Exception | None]]] = set()

    def add(self, offset: int, data: memoryview, *, fua: bool, done: Done) -> None:
        """Begin a write; see `Device.write_nowait`."""
        self._gathered.append(_Write(offset, data, fua, done))
        self._start_soon()

    async def close(self) -> None:
        """Wait for every write that was begun; what is to be durable may be so only later."""
        while self._gathered or self._jobs:
            await asyncio.sleep(0)  # the start of what was added, the callbacks of what has ended
            if self._jobs:
                await asyncio.wait(self._jobs)

    def _start_soon(self) -> None:
        """Start at the end of this turn of the loop, with all that begins in it."""
        if self._start is None:
            self._start = asyncio.get_running_loop().call_soon(self._start_all)

    def _start_all(self) -> None:
        self._start = None
        while self._gathered and len(self._jobs) < _JOBS:
            self._start_job()

    def _start_job(self) -> None:
        batch: list[_Write] = []
        size = 0
        while self._gathered and (not batch or size + len(self._gathered[0].data) <= _JOB):
            write = self._gathered.popleft()
            batch.append(write)
            size += len(write.data)
        job = asyncio.get_running_loop().run_in_executor(io_pool(), self._carry_out, batch)
        self._jobs.add(job)
        job.add_done_callback(lambda job: self._carried_out(batch, job))

    def _carry_out(self, batch: Sequence[_Write]) -> list[Exception | None]:
        """Write a batch, in a thread; one outcome for each."""
        outcomes: list[Exception | None] = []
        for write in batch:
            try:
                self._write(write.offset, write.data)
            except Exception as exc:  # noqa: BLE001 -- it is told to the one it concerns
                outcomes.append(exc)
            else:
                outcomes.append(None)
        return outcomes

    def _carried_out(
        self, batch: Sequence[_Write], job: asyncio.Future[list[Exception | None]]
    ) -> None:
        self._jobs.discard(job)
        for write, error in zip(batch, job.result(), strict=True):
            if write.fua and error is None:
                assert self._commit is not None, "fua is asked for only where there is a commit"
                self._commit(write.done)
            else:
                write.done(error)
        self._start_all()
