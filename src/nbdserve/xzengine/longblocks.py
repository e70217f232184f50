"""Blocks too long to wait for: decoded into the spill file, and served as far as they have come.

A read is answered as soon as its bytes are settled (`formats.lzma2`), long before its block is
verified; so a block of any size costs no memory but its decoder's. One job a block decodes it, in
order, for all readers. What a job does when nobody waits for it:

- *It goes on* while the link is idle, that is while nobody waits for any other block either: to the
  end of the block, or, of a block over `_WHOLE`, to `_AHEAD` beyond what was asked for last.
- *It is parked* otherwise, its decoder kept. Within `_PARK` seconds it goes on where it was; after
  that, or when others are parked already and no connection were left for who waits, it gives its
  own back, and one more request takes it up again.
- *It is dropped* when decoders of other jobs need the memory, the one longest unused first. What it
  has put into the spill file is still served; what is beyond it begins anew.

Invariants: nothing beyond the settled part is served; once a block has failed its check nothing of
it is served again before all of it is verified; jobs end with `close`.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from nbdserve.errors import CorruptDataError, NoSpaceError, SourceUnavailableError
from nbdserve.formats.xz import XzIndex
from nbdserve.xzengine.intake import INTAKE, Intake
from nbdserve.xzengine.packed import PackedBlocks
from nbdserve.xzengine.spill import Spill
from nbdserve.xzengine.turns import Turns
from nbdserve.xzengine.unpacking import SpillSink, Unpacking
from nbdserve.xzengine.zeroruns import ZeroRuns

__all__ = ["LongBlocks", "Wait"]

log = logging.getLogger(__name__)

_WHOLE: Final = 512 << 20  # a longer block is not decoded to its end unasked
_AHEAD: Final = 64 << 20
_PARK: Final = 20.0  # seconds; web servers drop a connection that takes nothing for 60
_PARKED: Final = 2  # jobs at once at most; a source has few connections
_DECODERS: Final = 160 << 20  # bytes of memory for decoders: twenty of xz -6, two of xz -9 ...
_FEWEST: Final = 3  # ... but never fewer at once, or readers in turns would begin anew each time
_IN_ORDER: Final = 8  # reads of a block, from which on its reader is taken to go on in the next


class Wait:
    """One reader's wait for a part of a long block; use as a context manager."""

    def __init__(self, blocks: "LongBlocks", job: "_Job", end: int) -> None:
        self._blocks = blocks
        self._job = job
        self.end = end
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait(self) -> None:
        """Return when the part is there.

        Raises:
            DeviceError: what the block failed with.
        """
        await self.future

    def leave(self) -> None:
        """Wait no more."""
        self._blocks.leave(self._job, self)


class _Job:
    """A block that is being decoded, and who waits for it."""

    def __init__(self, number: int, unpacking: Unpacking) -> None:
        self.number = number
        self.unpacking = unpacking
        self.waits: set[Wait] = set()
        self.asked = 0  # how often it was waited for
        self.wanted = 0  # the furthest anybody asked for, in bytes of the block
        self.begun = False  # its decoder takes memory, or is about to
        self.failed = False  # its fetch failed; it goes on when it is asked for again
        self.go = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class LongBlocks:
    """Decodes long blocks for their readers.

    Args:
        index: where the blocks are.
        packed: where their bytes come from.
        spill: where their data goes.
        zeroes: what is learnt of zeroes.
        turns: at the cores.
        memlimit: bytes one decoder may use.
        may_begin: tells whether a block nobody asked for is one for here.
        on_end: called with a block's number when it is verified, or with why it is corrupt.
    """

    def __init__(
        self,
        index: XzIndex,
        packed: PackedBlocks,
        spill: Spill,
        zeroes: ZeroRuns,
        turns: Turns,
        *,
        memlimit: int,
        may_begin: Callable[[int], bool],
        on_end: Callable[[int, CorruptDataError | None], None],
    ) -> None:
        self._index = index
        self._packed = packed
        self._spill = spill
        self._zeroes = zeroes
        self._turns = turns
        self._memlimit = memlimit
        self._may_begin = may_begin
        self._on_end = on_end
        self._available: dict[int, int] = {}
        self._distrusted: set[int] = set()
        self._sinks: dict[int, SpillSink] = {}  # of blocks begun and not whole yet
        self._jobs: dict[int, _Job] = {}  # the least recently used first
        self._ending: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._parked = 0

    def __contains__(self, number: int) -> bool:
        """Tell whether a block is being decoded."""
        return number in self._jobs

    def available(self, number: int) -> int:
        """Return how many bytes of a block, from its start, may be served."""
        return self._available.get(number, 0)

    def claim(self, number: int, end: int) -> Wait:
        """Ask for the first `end` bytes of a block; the caller waits and leaves."""
        job = self._jobs.pop(number, None) or self._begin(number)
        self._jobs[number] = job
        wait = Wait(self, job, end)
        job.waits.add(wait)
        job.asked += 1
        job.wanted = max(job.wanted, end)
        job.failed = False
        self._begin_next(job)
        self._steer()
        return wait

    def leave(self, job: _Job, wait: Wait) -> None:
        """Take a reader out of a job's books."""
        job.waits.discard(wait)
        if not wait.future.cancel() and not wait.future.cancelled():
            wait.future.exception()  # told to nobody, and that is right
        if not (job.waits or job.begun):
            self._drop(job)
        self._steer()

    async def close(self) -> None:
        """End every job."""
        tasks = [job.task for job in self._jobs.values() if job.task] + list(self._ending)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Which jobs may work

    def _begin(self, number: int) -> _Job:
        block = self._index.block(number)
        sink = self._sinks.setdefault(number, SpillSink(self._spill, block.offset))
        job = _Job(number, Unpacking(block, sink, memlimit=self._memlimit))
        job.task = asyncio.get_running_loop().create_task(self._run(job))
        return job

    def _begin_next(self, job: _Job) -> None:
        """Begin the block after one whose reader comes to its end in order."""
        following = job.number + 1
        near_end = job.wanted > self._index.block_size(job.number) - _AHEAD
        if job.asked < _IN_ORDER or not near_end or following >= self._index.blocks:
            return
        if following in self._jobs or self._available.get(following):
            return
        if self._index.block_size(following) < _AHEAD or not self._may_begin(following):
            return
        self._jobs[following] = self._begin(following)
        self._jobs[following].wanted = _AHEAD

    def _steer(self) -> None:
        """Let those jobs work that may; called whenever that may have changed."""
        busy = sum(1 for job in self._jobs.values() if job.waits)
        for job in self._jobs.values():
            if self._may_go(job, busy):
                job.go.set()
            else:
                job.go.clear()
        self._changed.set()

    def _may_go(self, job: _Job, busy: int) -> bool:
        if job.waits:
            return True
        if job.failed:
            return False
        come = job.unpacking.settled
        if not busy:
            size = self._index.block_size(job.number)
            return size <= _WHOLE or come < job.wanted + _AHEAD
        # beside one reader at most: the next block of who goes in order
        return busy == 1 and not job.asked and come < job.wanted

    async def _enter(self, job: _Job) -> None:
        """Wait until there is memory for one more decoder; drop an idle one if this is needed."""
        while True:
            others = [other for other in self._jobs.values() if other is not job]
            begun = [other for other in others if other.begun]
            taken = sum(other.unpacking.dictionary for other in begun)
            if len(begun) < _FEWEST or taken < _DECODERS:
                job.begun = True
                return
            idle = next((other for other in begun if not other.waits), None)
            if idle is not None and job.waits:
                self._drop(idle)
            self._changed.clear()
            await self._changed.wait()

    def _drop(self, job: _Job) -> None:
        log.debug("xz block dropped number=%d at=%d", job.number, job.unpacking.settled)
        self._forget(job)
        if job.task is not None:
            job.task.cancel()

    def _forget(self, job: _Job) -> None:
        if self._jobs.get(job.number) is job:
            del self._jobs[job.number]
        if job.task is not None and not job.task.done():
            self._ending.add(job.task)
            job.task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._ending.discard(task)
        self._changed.set()

    # Working

    async def _run(self, job: _Job) -> None:
        error: Exception | None = SourceUnavailableError("xz: the export is being closed")
        try:
            await self._enter(job)
            await self._spill.refuse_when_nearly_full()
            while not job.unpacking.verified:
                await job.go.wait()
                await self._work(job)
            error = None
        except Exception as exc:  # noqa: BLE001 -- it is for who waits, as of any other read
            error = exc
        finally:
            self._finish(job, error)

    async def _work(self, job: _Job) -> None:
        """Receive and decode as long as the job may; return when it gives its connection back."""
        unpacking = job.unpacking
        received = unpacking.received
        stream = self._packed.stream(unpacking.block, received)
        missing = unpacking.block.fetch_length - received
        async with Intake(stream, missing, limit=INTAKE) as intake:
            while not unpacking.verified:
                if not (job.go.is_set() or await self._park(job)):
                    return
                if unpacking.is_hungry:
                    try:
                        unpacking.give(await intake.take())
                    except Exception as exc:  # noqa: BLE001 -- whatever a source fails with
                        self._stall(job, exc)
                        return
                await self._turns.run(unpacking.step, urgent=lambda: bool(job.waits))
                self._publish(job)

    async def _park(self, job: _Job) -> bool:
        """Wait until the job may go on; tell whether it may, or gives its connection back."""
        if self._parked >= self._most_parked():
            return False
        self._parked += 1
        try:
            async with asyncio.timeout(_PARK):
                await job.go.wait()
        except TimeoutError:
            return False
        finally:
            self._parked -= 1
        return True

    def _most_parked(self) -> int:
        """Count the jobs that may keep a connection: one is left for who waits for a block."""
        streams = self._packed.streams
        return _PARKED if streams is None else min(_PARKED, streams - 1)

    def _stall(self, job: _Job, exc: Exception) -> None:
        """Tell those who wait that the fetch failed; the decoder is as good as before."""
        job.failed = True
        waits, job.waits = job.waits, set()
        for wait in waits:
            if not wait.future.done():
                wait.future.set_exception(exc.with_traceback(None))
        self._steer()

    def _publish(self, job: _Job) -> None:
        unpacking = job.unpacking
        self._changed.set()  # how much memory it takes is known with its first bytes
        self._zeroes.add(job.number, unpacking.take_zeroes())
        settled = unpacking.settled
        if job.number in self._distrusted and not unpacking.verified:
            return
        if settled > self._available.get(job.number, 0):
            self._available[job.number] = settled
        served = [wait for wait in job.waits if wait.end <= settled]
        for wait in served:
            job.waits.discard(wait)
            if not wait.future.done():
                wait.future.set_result(None)
        if served or not job.waits:
            self._steer()

    def _finish(self, job: _Job, error: Exception | None) -> None:
        self._forget(job)
        if error is None:
            self._spill.complete(job.number)
            self._available.pop(job.number, None)
            self._sinks.pop(job.number, None)
            self._on_end(job.number, None)
        elif isinstance(error, CorruptDataError):
            self._corrupt(job, error)
        elif isinstance(error, NoSpaceError):
            self._spill.give_up(error)
        for wait in job.waits:
            if not wait.future.done():
                if error is None:
                    wait.future.set_result(None)
                else:
                    wait.future.set_exception(error)
        job.waits.clear()
        self._steer()

    def _corrupt(self, job: _Job, error: CorruptDataError) -> None:
        served = self._available.pop(job.number, 0)
        self._distrusted.add(job.number)
        self._zeroes.forget(job.number)
        if served:
            log.error("%s; %d bytes of it were answered before its check", error, served)
        self._on_end(job.number, error)
