"""Reads that have to wait for the disk, many in one job of an I/O thread.

A hop into a thread for each read costs more than the read, and a thread that waits for one read
gives the disk only one to do. So the reads of a turn of the event loop share a job: the kernel is
told of all of them (posix_fadvise), begins them at once, and then they are taken one by one.

Each read is answered when it is there, without waiting for the rest of its job, if that takes long.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from nbdserve.device import Done
from nbdserve.threads import io_pool

__all__ = ["ReadBatch", "runs"]

_READS = 32  # a job: two share what a client with 64 reads asks for, and one copies meanwhile
_JOB = 4 << 20  # bytes
_JOBS = 16  # at once: half of the threads, so that writes and flushes find one
_PATIENCE = 0.0005  # seconds until what is there is answered


class _Read(NamedTuple):
    offset: int
    view: memoryview
    done: Done


_Outcome = tuple[Done, Exception | None]


class ReadBatch:
    """The reads of a file that are under way. One event loop.

    Args:
        read: fills all of a buffer, or raises; blocks, and is called in threads.
        prefetch: has the kernel begin to read a range; likewise.
    """

    def __init__(
        self, read: Callable[[int, memoryview], None], prefetch: Callable[[int, int], None]
    ) -> None:
        self._read = read
        self._prefetch = prefetch
        self._gathered: deque[_Read] = deque()
        self._jobs = 0
        self._start: asyncio.Handle | None = None

    def add(self, offset: int, view: memoryview, done: Done) -> None:
        """Begin to fill all of `view`; `done` is called once on the loop, later."""
        self._gathered.append(_Read(offset, view, done))
        if self._start is None:
            self._start = asyncio.get_running_loop().call_soon(self._start_jobs)

    def _start_jobs(self) -> None:
        self._start = None
        while self._gathered and self._jobs < _JOBS:
            batch = list(_take(self._gathered))
            self._jobs += 1
            loop = asyncio.get_running_loop()
            job = loop.run_in_executor(io_pool(), self._carry_out, batch, loop)
            job.add_done_callback(self._ended)

    def _ended(self, job: asyncio.Future[None]) -> None:
        self._jobs -= 1
        job.exception()  # there is none: each read has been told its own
        self._start_jobs()

    def _carry_out(self, batch: Sequence[_Read], loop: asyncio.AbstractEventLoop) -> None:
        """Carry out a batch, in a thread."""
        if len(batch) > 1:
            for offset, length in runs((read.offset, len(read.view)) for read in batch):
                self._hint(offset, length)
        outcomes: list[_Outcome] = []
        answered = time.monotonic()
        for read in batch:
            error = None
            try:
                self._read(read.offset, read.view)
            except Exception as exc:  # noqa: BLE001 -- it is told to the one it concerns
                error = exc
            outcomes.append((read.done, error))
            if (now := time.monotonic()) - answered > _PATIENCE:
                answered = now
                _tell(loop, outcomes)
                outcomes = []
        _tell(loop, outcomes)

    def _hint(self, offset: int, length: int) -> None:
        try:
            self._prefetch(offset, length)
        except OSError:
            pass  # a hint; the read itself finds out what is wrong


def runs(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Join ranges (offset, length) that touch or overlap; in order of their offsets."""
    begin = end = -1
    for offset, length in sorted(ranges):
        if offset > end:
            if end > begin:
                yield begin, end - begin
            begin = offset
        end = max(end, offset + length)
    if end > begin:
        yield begin, end - begin


def _take(gathered: deque[_Read]) -> Iterator[_Read]:
    """Take what makes up one job: at least one read."""
    size = 0
    for count in range(_READS):
        if not gathered or (count and size + len(gathered[0].view) > _JOB):
            return
        read = gathered.popleft()
        size += len(read.view)
        yield read


def _tell(loop: asyncio.AbstractEventLoop, outcomes: Sequence[_Outcome]) -> None:
    try:
        loop.call_soon_threadsafe(_settle, outcomes)
    except RuntimeError:
        pass  # the loop was closed meanwhile, and nobody waits any more


def _settle(outcomes: Sequence[_Outcome]) -> None:
    for done, error in outcomes:
        done(error)
