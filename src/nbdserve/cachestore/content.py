"""The cached chunks of one image, open: shared by all layers of a process that cache this image.

Invariants:

- A chunk is served only in a state that this process knows to be right: it wrote the bytes itself,
  or it has seen them match the checksum in the map. A chunk that does not match is dropped, and
  read from below again.
- A chunk loses its state before its bytes are punched. Reads without waiting happen between the
  two turns of the loop; a read in a thread counts only if nothing was evicted meanwhile.
- Only the process that holds the lock of the map writes chunks; the others see what it adds. Only
  a process that is alone with the image evicts. Ranges that were lent by `file_range` stay.

Used by one event loop; what blocks runs in I/O threads.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence

from nbdserve.buffers import fill_zeroes
from nbdserve.cachestore.chunkfile import FULL
from nbdserve.cachestore.chunkmap import GROUP, ChunkMap, ChunkState, StateRun
from nbdserve.cachestore.imagefiles import ImageFiles
from nbdserve.device import FileRange
from nbdserve.errors import CorruptDataError
from nbdserve.ranges import pieces
from nbdserve.threads import run_io
from nbdserve.unbroken import run_unbroken

__all__ = ["Content"]

log = logging.getLogger(__name__)

_DATA, _ZERO = int(ChunkState.DATA), int(ChunkState.ZERO)
_GROUP_SHIFT = GROUP.bit_length() - 1
_ASK_AGAIN = 1.0  # seconds between two tries to take over from another process


class Content:
    """The chunks of one image.

    Attributes:
        name: what its files are called.
        files: its files.
        size: bytes of the image.
        chunk: bytes in a chunk, a power of two.
        writable: whether this process may add chunks.
        evicted: bytes evicted so far.
        damaged: chunks so far that did not match their checksums.
        now: the time that reads note as their groups' last use, in milliseconds.
    """

    def __init__(self, files: ImageFiles, may_lend: Callable[[int], bool]) -> None:
        """Take over open files, and what their map claims; blocks.

        Args:
            files: the files.
            may_lend: asked before so many bytes become unmovable.
        """
        self.name, self.size, self.chunk = files.name, files.size, files.chunk
        self.files = files
        self.writable = files.claims.locked
        self.evicted = 0
        self.damaged = 0
        self.now = time.time_ns() // 1_000_000
        self._data = files.data
        self._may_lend = may_lend
        self._map = ChunkMap(self.size, self.chunk)
        self._states = self._map.states
        self._used = self._map.used
        self._shift = self.chunk.bit_length() - 1
        self._generation = 0
        self._busy: set[int] = set()
        self._putting: Counter[int] = Counter()
        self._lent: set[int] = set()
        self._tasks: set[asyncio.Task[int]] = set()
        self._house = asyncio.Lock()
        self._refreshing = asyncio.Lock()
        self._closed = False
        self._given_up = False
        self._unsynced: set[int] = set()
        self._fetching: dict[int, asyncio.Future[None]] = {}
        self._asked = time.monotonic()
        claims = files.claims
        self._map.load(claims.kinds[: self._map.count])
        there = os.fstat(self._data.fd).st_mtime_ns // 1_000_000
        for group in self._map.groups:
            when = claims.used.get(group)
            self._used[group] = there if when is None else when * 1000

    @property
    def stored(self) -> int:
        """Bytes of chunks that take room."""
        return self._map.stored * self.chunk

    @property
    def present(self) -> int:
        """Bytes that need not be read from below, but for damage found later."""
        return min((self._map.stored + self._map.zeroes) * self.chunk, self.size)

    @property
    def lent(self) -> int:
        """Bytes at most that cannot be evicted, for somebody may be sending them."""
        return len(self._lent) * GROUP * self.chunk

    # Reading

    def read_nowait(self, offset: int, view: memoryview) -> bool:
        """Fill `view` if that takes no waiting; else it is undefined."""
        length = len(view)
        first = offset >> self._shift
        last = (offset + length - 1) >> self._shift
        if first == last:
            state = self._states[first]
        elif length == 0:
            return True
        else:
            found = self._states[first : last + 1]
            state = found[0]
            if found.count(state) != len(found):
                return self._read_mixed_nowait(offset, view)
        if state == _DATA:
            if not self._data.read_nowait(offset, view):
                return False
            self._used[first >> _GROUP_SHIFT] = self.now
            if first != last:
                self._touch(first, last)
            return True
        if state == _ZERO:
            fill_zeroes(view)
            return True
        return False

    def _read_mixed_nowait(self, offset: int, view: memoryview) -> bool:
        if not self._map.is_ready(offset, len(view)):
            return False
        return all(
            self.read_nowait(run.offset, view[run.offset - offset :][: run.length])
            for run in self._map.runs(offset, len(view))
        )

    async def read(self, offset: int, view: memoryview) -> bool:
        """Fill `view`, from the disk if it must be; False if any of it is not at hand."""
        while self._map.is_ready(offset, len(view)):
            generation = self._generation
            wanted = []
            for run in self._map.runs(offset, len(view)):
                part = view[run.offset - offset :][: run.length]
                if run.state is ChunkState.ZERO:
                    fill_zeroes(part)
                else:
                    wanted.append((run.offset, part))
            try:
                await run_io(self.files.read, wanted)
            except OSError as exc:
                self._distrust([piece.unit for piece in pieces(offset, len(view), self.chunk)], exc)
                return False
            if self._generation == generation:
                self._touch(offset >> self._shift, (offset + len(view) - 1) >> self._shift)
                return True
        return False

    def file_range(self, offset: int, length: int) -> FileRange | None:
        """Lend a range of the file for as long as the image is open here."""
        first, last = offset >> self._shift, (offset + length - 1) >> self._shift
        if length == 0 or self._states[first : last + 1].count(_DATA) != last + 1 - first:
            return None
        groups = set(range(first >> _GROUP_SHIFT, (last >> _GROUP_SHIFT) + 1)) - self._lent
        if groups and not self._may_lend(len(groups) * GROUP * self.chunk):
            return None
        self._lent |= groups
        self._touch(first, last)
        return FileRange(self._data.fd, offset)

    def runs(self, offset: int, length: int) -> Iterator[StateRun]:
        """Split a range by what is known of it."""
        return self._map.runs(offset, length)

    def is_ready(self, number: int) -> bool:
        """Tell whether a chunk can be served as it is."""
        return self._states[number] >= _DATA

    def absent_from(self, number: int) -> int:
        """Return the first absent chunk from `number` on, or how many chunks there are."""
        return self._map.absent_from(number)

    async def take(self, numbers: Iterable[int]) -> dict[int, memoryview]:
        """Read whole chunks and verify them; those that are damaged or absent are left out."""
        wanted = [number for number in numbers if self._states[number]]
        if not wanted:
            return {}
        self._tick()
        found = await run_io(self.files.read_verified, wanted)
        bad = [number for number in wanted if number not in found]
        for number in found:
            if self._states[number] == ChunkState.CLAIMED:
                self._map.put(number, ChunkState.DATA)
                self._touch(number, number)
        # what was evicted meanwhile was no damage
        self._distrust([number for number in bad if self._states[number]])
        return found

    async def prefetch(self, offset: int, length: int) -> None:
        """Have the kernel read a range into its page cache, as far as it is here."""
        await run_io(self._data.prefetch, offset, length)

    # Adding

    @contextlib.asynccontextmanager
    async def alone(self, numbers: range) -> AsyncIterator[None]:
        """Be the only one of this process who brings these chunks, after those who do already."""
        while under_way := {self._fetching[n] for n in numbers if n in self._fetching}:
            await asyncio.wait(under_way)
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._fetching.update(dict.fromkeys(numbers, mine))
        try:
            yield
        finally:
            for number in numbers:
                del self._fetching[number]
            mine.set_result(None)

    async def put(self, first: int, data: memoryview) -> int:
        """Keep whole neighbouring chunks; return the bytes of them that take room.

        Raises:
            OSError: they could not be written; none of them counts as cached.
        """
        # goes on when its reader has given up: what is written is to be known
        task = asyncio.get_running_loop().create_task(self._put(first, data))
        self._tasks.add(task)
        task.add_done_callback(self._put_done)
        return await asyncio.shield(task)

    async def _put(self, first: int, data: memoryview) -> int:
        last = first + (len(data) - 1) // self.chunk
        groups = range(first >> _GROUP_SHIFT, (last >> _GROUP_SHIFT) + 1)
        if not self.writable or not self._busy.isdisjoint(groups):
            return 0
        self._tick()
        self._putting.update(groups)
        try:
            states = await run_io(self.files.write, first, data)
        finally:
            self._putting.subtract(groups)
            self._putting = +self._putting  # without those that are 0 by now
        for number, state in enumerate(states, first):
            if self._states[number] < _DATA:
                self._map.put(number, state)
            self._touch(number, number)
        added = [number for number, state in enumerate(states, first) if state == _DATA]
        self._unsynced.update(added)
        return len(added) * self.chunk

    def _put_done(self, task: asyncio.Task[int]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # told to the reader; if that has given up, to nobody

    async def put_zeroes(self, offset: int, length: int) -> None:
        """Remember that the absent chunks that lie wholly in a range are zero."""
        end = offset + length
        stop = self._map.count if end == self.size else end >> self._shift
        numbers = self._map.zero(-(-offset // self.chunk), stop)
        if self.writable and numbers:
            await run_unbroken(self.files.claim_zeroes, numbers)

    async def refresh(self) -> None:
        """See what another process has added, and take over from it if it is gone."""
        if not self.writable and not self._given_up:
            async with self._refreshing:  # who comes second waits for what the first has read
                await self._refresh()

    async def _refresh(self) -> None:
        if not self.files.claims.has_news() and time.monotonic() - self._asked < _ASK_AGAIN:
            return
        self._asked = time.monotonic()
        try:
            self.writable, changed = await run_unbroken(self.files.catch_up)
        except (CorruptDataError, OSError) as exc:
            log.debug("cache map cannot be read name=%s: %s", self.name, exc)
            return
        for number in changed:
            if self._states[number] != _DATA:  # what was verified here stays right
                self._map.put(number, ChunkState(self.files.claims.kinds[number]))

    def give_up(self) -> None:
        """Add nothing more, for the disk has failed; nor take over again what we hold already."""
        self._given_up = True
        self.writable = False

    # Dropping

    def evictable(self) -> list[tuple[int, int]]:
        """List the groups that may be evicted, and their bytes."""
        if not self._data.punches:
            return []
        return self._map.stored_groups(self._lent | self._busy | self._putting.keys())

    def used_at(self, group: int) -> int:
        """Tell when a group was last used, in milliseconds since 1970; from any thread."""
        return int(self._used[group])

    async def evict(self, groups: Collection[int]) -> None:
        """Drop groups of chunks and give their room back; only where the file is ours alone.

        Groups that were lent, or that something is being written to, since they were listed stay:
        what is written now would be punched, and count as there.
        """
        groups = set(groups) - self._lent - self._busy - self._putting.keys()
        self._busy.update(groups)
        numbers = self._take_out(groups)
        self.evicted += len(numbers) * self.chunk
        try:
            await run_unbroken(self.files.drop, numbers, groups)
        finally:
            self._busy.difference_update(groups)

    def _take_out(self, groups: Collection[int]) -> list[int]:
        """Serve the chunks of groups no more; return those that were there."""
        numbers = self._map.take_out(groups)
        self._generation += 1
        self._unsynced.difference_update(numbers)
        return numbers

    def _distrust(self, numbers: Sequence[int], exc: OSError | None = None) -> None:
        """Take chunks for absent that turned out to be damaged."""
        if not numbers:
            return
        log.log(
            logging.DEBUG if self.damaged else logging.WARNING,
            "cached data is damaged and will be read from below again; check the disk "
            "file=%s offset=%d chunks=%d: %s", self._data.path, numbers[0] * self.chunk,
            len(numbers), exc.strerror if exc else "checksums differ",
        )  # fmt: skip
        self.damaged += len(numbers)
        for number in numbers:
            self._map.put(number, ChunkState.ABSENT)
        if self.writable:
            self.files.forget(numbers)

    # Keeping house

    async def tend(self) -> None:
        """Note on disk what was used, have what was added written, keep the map short."""
        self._tick()
        async with self._house:
            if self.writable and not self._closed:
                await self._tend()

    async def _tend(self) -> None:
        unsynced, self._unsynced = self._unsynced, set()
        try:
            await run_unbroken(self.files.save, self._map.last_uses())
        except OSError as exc:
            if exc.errno in FULL or not unsynced:
                return
            log.warning(
                "the disk of the cache fails, nothing more is kept; check it file=%s: %s",
                self._data.path, exc.strerror,
            )  # fmt: skip
            self.give_up()
            if self._tasks:
                await asyncio.wait(self._tasks)  # the last, for nothing is added any more
            # the kernel may have dropped what it could not write; of what was lent as well
            groups = {number >> _GROUP_SHIFT for number in unsynced | self._unsynced}
            lent = groups & self._lent
            self._take_out(lent)
            await self.evict(groups - lent)

    async def settle(self) -> None:
        """Wait until nothing is being written any more; comes before `close`."""
        async with self._house:
            self._closed = True
            if self._tasks:
                await asyncio.wait(self._tasks)

    def close(self) -> None:
        """Note what was used and close the files; blocks."""
        try:
            if self.writable:
                self.files.save_use(self._map.last_uses())
        except OSError as exc:
            log.debug("cache map cannot be written name=%s: %s", self.name, exc)
        finally:
            self.files.close()

    def _tick(self) -> None:
        # more than the clock tells: what is used after a miss is hotter than what was before
        self.now = max(self.now + 1, time.time_ns() // 1_000_000)

    def _touch(self, first: int, last: int) -> None:
        for group in range(first >> _GROUP_SHIFT, (last >> _GROUP_SHIFT) + 1):
            self._used[group] = self.now
