"""A cache of blocks that are dear to make: bounded in bytes, each loaded once for all readers.

`get_nowait` is the hot path: one look-up, no waiting. A miss becomes a *flight*: one load that
brings one key or a run of keys, however many readers claim it. Loads wait their turn in order and
count against the budget before they begin, so that memory is bounded whatever the readers do.

Invariants:

- Weight held plus weight reserved by running loads is at most the budget; only a load that is
  heavier than its share runs in spite of it, and then alone. The newest block always stays, so
  that a block over the budget is not loaded again for each read of it.
- Loads reserve at most two thirds of the budget, so that what was just loaded outlives the next
  admission: its readers come back for the rest of it.
- A cancelled reader never ends a load that others wait for; the last one to leave does. A failed
  load is told to all who wait for it, and nothing of it is kept.
- A key that is discarded while its load is under way is not inserted, and nobody joins that load
  any more.
- All tasks belong to the cache and end with `close`. One event loop, no threads.
"""

import asyncio
import functools
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Coroutine, Hashable, Sequence
from types import TracebackType
from typing import Any, Generic, NamedTuple, TypeVar

__all__ = ["BlockCache", "Claim", "Load", "Weighed"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# What a block costs beside its bytes (key, tuple, two dict slots): honest for small blocks.
_ENTRY = 256


class Weighed(NamedTuple, Generic[V]):
    """A loaded block and the memory in bytes that it keeps occupied."""

    value: V
    weight: int


Load = Callable[[], Coroutine[Any, Any, Sequence[Weighed[V]]]]
"""Makes the blocks of a flight, in the order of its keys; runs as the cache's task."""


class _Flight(Generic[K, V]):
    """One load, waiting for its turn or running, and the readers that wait for it."""

    def __init__(self, keys: Sequence[K], load: Load[V], weight: int) -> None:
        self.keys = keys
        self.load = load
        self.weight = weight
        self.kept = False
        self.readers = 0
        self.stale: set[K] = set()
        self.task: asyncio.Task[Sequence[Weighed[V]]] | None = None
        self.values: dict[K, V] | None = None
        self.error: BaseException | None = None
        self.waiters: list[asyncio.Future[None]] = []

    def wake(self) -> None:
        """Have the readers that wait look again."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)
        self.waiters.clear()


class Claim(Generic[K, V]):
    """One reader's claim to a load; use it as a context manager, or call `leave` once."""

    __slots__ = ("_cache", "_flight")

    def __init__(self, cache: "BlockCache[K, V]", flight: "_Flight[K, V]") -> None:
        self._cache = cache
        self._flight: _Flight[K, V] | None = flight
        flight.readers += 1

    async def wait(self, key: K, *, early: Callable[[], V | None] | None = None) -> V:
        """Return the block of `key` when it is loaded.

        Args:
            key: one of the flight's.
            early: returns what will do for this reader, if the load has come so far. It is asked
                at once, and whenever the load says that it has come further (`nudge`). The load
                then goes on to its end, whoever waits for it.

        Raises:
            DeviceError: whatever the load failed with, for each of its readers.
        """
        flight = self._flight
        assert flight is not None, "wait comes before leave"
        while flight.values is None and flight.error is None:
            found = None if early is None else early()
            if found is not None:
                flight.kept = True
                return found
            waiter = asyncio.get_running_loop().create_future()
            flight.waiters.append(waiter)
            await waiter
        if flight.error is not None:
            # without a fresh traceback each of many readers would lengthen the same one
            raise flight.error.with_traceback(None)
        assert flight.values is not None
        return flight.values[key]

    def leave(self) -> None:
        """Give the claim up; the load of a flight that nobody waits for is cancelled."""
        flight, self._flight = self._flight, None
        if flight is not None:
            self._cache._leave(flight)  # noqa: SLF001 -- a claim is a part of its cache

    def __enter__(self) -> "Claim[K, V]":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()


class BlockCache(Generic[K, V]):
    """Blocks by key, least recently used first out, with single flight.

    Args:
        budget: bytes that held blocks and running loads may weigh together.
        loads: loads running at once; more wait in the order they were asked for.
        evicted: called with key and block when a block is dropped to make room.
    """

    def __init__(
        self, budget: int, *, loads: int, evicted: Callable[[K, V], None] | None = None
    ) -> None:
        self._budget = budget
        self._evicted = evicted
        self._share = budget * 2 // 3
        self._loads = loads
        self._entries: OrderedDict[K, Weighed[V]] = OrderedDict()
        self._held = 0
        self._reserved = 0
        self._flights: dict[K, _Flight[K, V]] = {}
        self._queue: deque[_Flight[K, V]] = deque()
        self._running: set[_Flight[K, V]] = set()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        """Tell whether a block is held or on its way."""
        return key in self._entries or key in self._flights

    @property
    def weight(self) -> int:
        """Bytes held now, without the loads that are running."""
        return self._held

    @property
    def in_flight(self) -> int:
        """Loads running or waiting for their turn."""
        return len(self._running) + len(self._queue)

    def has_free(self, keys: int, weight: int) -> bool:
        """Tell whether a load of so many keys and bytes would fit in without dropping a block."""
        return self._held + self._reserved + weight + _ENTRY * keys <= self._budget

    def get_nowait(self, key: K) -> V | None:
        """Return the block of `key` if it is held, and count that as its latest use."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def join(self, key: K) -> Claim[K, V] | None:
        """Claim the flight that already brings `key`, if there is one."""
        flight = self._flights.get(key)
        return None if flight is None else Claim(self, flight)

    def join_running(self, key: K) -> Claim[K, V] | None:
        """Claim the load that brings `key` if it has begun.

        For a load that can do with another's block: if it waited for one that is still waiting
        for room, and had that room itself, neither would end.
        """
        flight = self._flights.get(key)
        return None if flight is None or flight.task is None else Claim(self, flight)

    def start(
        self,
        keys: Sequence[K],
        load: Load[V],
        weight: int,
    ) -> Claim[K, V]:
        """Begin one load for all of `keys`, none of which is held or in flight.

        Args:
            keys: what the load brings.
            load: makes the blocks, in the order of `keys`; run at most once, as the cache's task.
            weight: bytes it may come to occupy, at most.
        """
        flight = self._take_off(keys, load, weight)
        claim = Claim(self, flight)
        self._admit()
        return claim

    def start_ahead(
        self, keys: Sequence[K], load: Load[V], weight: int, *, spare: Callable[[K], bool]
    ) -> bool:
        """Begin a load that no reader has asked for yet, if it can run at once beside the others.

        It is not cancelled for want of readers, and its failure is told to those who joined only.

        Args:
            keys: what the load brings.
            load: makes the blocks.
            weight: bytes it may come to occupy, at most.
            spare: tells of a held block whether it may be dropped to make room for this load.

        Returns:
            Whether it was begun.
        """
        cost = weight + _ENTRY * len(keys)
        if self._queue or self._reserved + cost > self._share or not self._has_room(cost):
            return False
        excess = self._held + self._reserved + cost - self._budget
        for key, entry in self._entries.items():
            if excess <= 0:
                break
            if not spare(key):
                return False
            excess -= entry.weight
        self._take_off(keys, load, weight).kept = True
        self._admit()
        return True

    def nudge(self, key: K) -> None:
        """Have those who wait for a load look whether it has come far enough for them."""
        flight = self._flights.get(key)
        if flight is not None:
            flight.wake()

    def is_awaited(self, key: K) -> bool:
        """Tell whether somebody waits for a load."""
        flight = self._flights.get(key)
        return flight is not None and flight.readers > 0

    async def get(self, key: K, load: Load[V], weight: int) -> V:
        """Return the block of `key`: held, or from the flight under way, or loaded now."""
        value = self.get_nowait(key)
        if value is not None:
            return value
        with self.join(key) or self.start((key,), load, weight) as claim:
            return await claim.wait(key)

    def discard(self, keys: Collection[K]) -> None:
        """Forget these keys; what a load under way brings for them is not kept either."""
        if len(keys) > len(self._entries) + len(self._flights):
            # a range of a whole device is cheaper to ask than to walk
            keys = [key for key in (*self._entries, *self._flights) if key in keys]
        for key in keys:
            entry = self._entries.pop(key, None)
            if entry is not None:
                self._held -= entry.weight
            flight = self._flights.pop(key, None)
            if flight is not None:
                flight.stale.add(key)

    async def close(self) -> None:
        """End every load and drop every block; readers that still wait are cancelled."""
        for flight in list(self._queue):
            self._finish(flight, asyncio.CancelledError())
        self._queue.clear()
        while self._running:
            tasks = [flight.task for flight in self._running if flight.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)  # tasks that had ended are not waited for, but land only now
        self._entries.clear()
        self._held = 0

    def _take_off(
        self,
        keys: Sequence[K],
        load: Load[V],
        weight: int,
    ) -> _Flight[K, V]:
        flight = _Flight(keys, load, weight + _ENTRY * len(keys))
        for key in keys:
            assert key not in self._flights, "one flight a key"
            self._flights[key] = flight
        self._queue.append(flight)
        return flight

    def _has_room(self, weight: int) -> bool:
        if not self._running:
            return True
        return len(self._running) < self._loads and self._reserved + weight <= self._share

    def _admit(self) -> None:
        while self._queue and self._has_room(self._queue[0].weight):
            flight = self._queue.popleft()
            self._running.add(flight)
            self._reserved += flight.weight
            self._evict(keep=0)
            flight.task = asyncio.get_running_loop().create_task(flight.load())
            # not a try/finally around the load: a task cancelled early never gets there
            flight.task.add_done_callback(functools.partial(self._land, flight))

    def _evict(self, *, keep: int) -> None:
        while self._held + self._reserved > self._budget and len(self._entries) > keep:
            key, entry = self._entries.popitem(last=False)
            self._held -= entry.weight
            if self._evicted is not None:
                self._evicted(key, entry.value)

    def _land(self, flight: _Flight[K, V], task: asyncio.Task[Sequence[Weighed[V]]]) -> None:
        """Keep what a load brought, or its error, and let the next one begin."""
        self._running.discard(flight)
        self._reserved -= flight.weight
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            self._insert(flight, task.result())
        self._finish(flight, error)
        self._admit()

    def _insert(self, flight: _Flight[K, V], found: Sequence[Weighed[V]]) -> None:
        flight.values = {}
        for key, (value, weight) in zip(flight.keys, found, strict=True):
            flight.values[key] = value
            if key not in flight.stale:
                self._entries[key] = Weighed(value, weight + _ENTRY)
                self._held += weight + _ENTRY
        self._evict(keep=1)

    def _finish(self, flight: _Flight[K, V], error: BaseException | None) -> None:
        """Take a flight out of the books and wake its readers."""
        self._detach(flight)
        flight.error = error
        if isinstance(error, asyncio.CancelledError):
            for waiter in flight.waiters:
                waiter.cancel()
        flight.wake()

    def _detach(self, flight: _Flight[K, V]) -> None:
        for key in flight.keys:
            if self._flights.get(key) is flight:
                del self._flights[key]

    def _leave(self, flight: _Flight[K, V]) -> None:
        flight.readers -= 1
        unfinished = flight.values is None and flight.error is None
        if flight.readers or flight.kept or not unfinished:
            return
        # a reader that comes now begins anew: this load is about to end, or has this moment ended
        self._detach(flight)
        flight.stale.update(flight.keys)
        if flight.task is None:
            self._queue.remove(flight)
            self._admit()
        else:
            flight.task.cancel()
