"""BlockCache: single flight, true LRU, the budget, admission, cancellation, discarding."""

import asyncio
import gc

import pytest

from nbdserve.blockcache import BlockCache, Weighed
from nbdserve.errors import SourceUnavailableError
from nbdserve.testing.faults import Gate

ENTRY = 256  # what an entry weighs beside its block


class Loads:
    """Loads that note their keys, and wait at a gate if there is one."""

    def __init__(self, gate=None, *, weight=1000, error=None):
        self.begun = []
        self.ended = []
        self.gate = gate
        self.weight = weight
        self.error = error

    def of(self, *keys):
        async def load():
            self.begun.extend(keys)
            try:
                if self.gate is not None:
                    await self.gate.enter()
                if self.error is not None:
                    raise self.error
                return [Weighed(f"block {key}", self.weight) for key in keys]
            finally:
                self.ended.extend(keys)

        return load


@pytest.fixture
async def make():
    """Make caches by room in blocks of 1000 bytes; they are closed at the end."""
    made = []

    def build(blocks=4, *, loads=8):
        cache = BlockCache(blocks * (1000 + ENTRY), loads=loads)
        made.append(cache)
        return cache

    yield build
    for cache in made:
        await cache.close()
        assert cache.in_flight == 0
        assert cache._reserved == 0
        assert cache._flights == {}


async def landing(cache, load):
    """Let a load's last reader leave in the moment between its end and its landing."""
    claim = cache.start(("a",), load, 1000)
    (flight,) = cache._running
    await asyncio.sleep(0)
    assert flight.task.done()
    assert cache.in_flight == 1
    claim.leave()


async def test_a_load_left_as_it_ends_is_not_kept_beside_the_next_one(make):
    cache, loads = make(), Loads()
    await landing(cache, loads.of("a"))
    assert await cache.get("a", loads.of("a"), 1000) == "block a"
    assert cache.weight == 1000 + ENTRY


async def test_a_load_left_as_it_ends_is_not_kept_when_it_is_discarded(make):
    cache, loads = make(), Loads()
    await landing(cache, loads.of("a"))
    cache.discard(["a"])
    await settle()
    assert cache.get_nowait("a") is None


async def settle():
    """Let everything that can run without outside help run."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_block_is_loaded_once_and_then_held(make):
    cache, loads = make(), Loads()
    assert cache.get_nowait(1) is None
    assert await cache.get(1, loads.of(1), 1000) == "block 1"
    assert await cache.get(1, loads.of(1), 1000) == "block 1"
    assert cache.get_nowait(1) == "block 1"
    assert loads.begun == [1]


async def test_many_readers_of_a_block_wait_for_one_load(make):
    cache, gate = make(), Gate()
    loads = Loads(gate)
    readers = [asyncio.create_task(cache.get(1, loads.of(1), 1000)) for _ in range(64)]
    await gate.waiting()
    await settle()
    gate.release()
    assert await asyncio.gather(*readers) == ["block 1"] * 64
    assert loads.begun == [1]


async def test_the_least_recently_used_block_goes_first(make):
    cache, loads = make(3), Loads()
    for key in (1, 2, 3):
        await cache.get(key, loads.of(key), 1000)
    cache.get_nowait(1)
    await cache.get(2, loads.of(2), 1000)
    await cache.get(4, loads.of(4), 1000)
    assert [key for key in range(5) if key in cache] == [1, 2, 4]
    await cache.get(5, loads.of(5), 1000)
    assert [key for key in range(6) if key in cache] == [2, 4, 5]


async def test_blocks_count_by_what_they_really_weigh(make):
    cache, loads = make(4), Loads(weight=0)
    for key in range(10):
        await cache.get(key, loads.of(key), 1000)
    assert all(key in cache for key in range(10))
    assert cache.weight == 10 * ENTRY


async def test_held_and_loading_blocks_never_exceed_the_budget(make):
    cache, gate = make(6), Gate()
    loads = Loads()
    for key in range(6):
        await cache.get(key, loads.of(key), 1000)
    held = Loads(gate)
    readers = [asyncio.create_task(cache.get(key, held.of(key), 1000)) for key in range(10, 20)]
    await gate.waiting(4)
    await settle()
    assert gate.held == 4, "two thirds of the budget for loads"
    assert len(cache) == 2
    assert cache.weight + cache._reserved <= 6 * (1000 + ENTRY)
    gate.release()
    await asyncio.gather(*readers)
    assert held.begun == list(range(10, 20))
    assert cache.weight <= 6 * (1000 + ENTRY)


async def test_loads_over_the_limit_begin_in_the_order_they_were_asked_for(make):
    cache, gate = make(100, loads=2), Gate()
    loads = Loads(gate)
    readers = [asyncio.create_task(cache.get(key, loads.of(key), 1000)) for key in range(5)]
    await gate.waiting(2)
    await settle()
    assert loads.begun == [0, 1]
    gate.release(1)
    await settle()
    assert loads.begun == [0, 1, 2]
    gate.release()
    await asyncio.gather(*readers)
    assert loads.begun == list(range(5))


async def test_a_block_over_the_budget_is_loaded_alone_and_stays_until_the_next(make):
    cache, loads = make(2), Loads()
    await cache.get(1, loads.of(1), 1000)
    gate = Gate()
    big = Loads(gate, weight=100_000)
    reader = asyncio.create_task(cache.get(2, big.of(2), 100_000))
    await gate.waiting()
    assert len(cache) == 0, "room is made before the load begins"
    other = asyncio.create_task(cache.get(3, loads.of(3), 1000))
    await settle()
    assert 3 not in loads.begun
    gate.release()
    assert await reader == "block 2"
    assert await other == "block 3"
    assert 2 not in cache
    await cache.get(4, big.of(4), 100_000)
    assert cache.get_nowait(4) == "block 4"


async def test_a_failure_is_told_to_all_readers_and_not_kept(make):
    cache, gate = make(), Gate()
    bad = Loads(gate, error=SourceUnavailableError("the mirror is away"))
    readers = [asyncio.create_task(cache.get(1, bad.of(1), 1000)) for _ in range(3)]
    await gate.waiting()
    gate.release()
    outcomes = await asyncio.gather(*readers, return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["the mirror is away"] * 3
    assert await cache.get(1, Loads().of(1), 1000) == "block 1"


async def test_a_cancelled_reader_does_not_end_the_load_of_another(make):
    cache, gate = make(), Gate()
    loads = Loads(gate)
    first, second = (asyncio.create_task(cache.get(1, loads.of(1), 1000)) for _ in range(2))
    await gate.waiting()
    await settle()
    first.cancel()
    await settle()
    assert first.cancelled()
    gate.release()
    assert await second == "block 1"
    assert loads.begun == [1]


async def test_the_last_reader_to_leave_ends_the_load(make):
    cache, gate = make(), Gate()
    loads = Loads(gate)
    readers = [asyncio.create_task(cache.get(1, loads.of(1), 1000)) for _ in range(2)]
    await gate.waiting()
    await settle()
    for reader in readers:
        reader.cancel()
    await settle()
    assert loads.ended == [1]
    assert cache.in_flight == 0
    assert await cache.get(1, Loads().of(1), 1000) == "block 1"


async def test_who_has_enough_of_a_load_leaves_it_to_come_to_its_end(make):
    cache, gate = make(), Gate()
    loads = Loads(gate)
    parts = []
    claim = cache.start(("a",), loads.of("a"), 1000)
    other = cache.join("a")
    waiting = asyncio.create_task(claim.wait("a", early=lambda: parts[-1] if parts else None))
    whole = asyncio.create_task(other.wait("a"))
    await settle()
    cache.nudge("a")
    await settle()
    assert not waiting.done(), "it has not come far enough"
    parts.append("half of a")
    cache.nudge("a")
    assert await waiting == "half of a"
    assert not whole.done()
    for each in (claim, other):
        assert cache.is_awaited("a")
        each.leave()
    whole.cancel()
    assert not cache.is_awaited("a")
    gate.release()
    await settle()
    assert cache.get_nowait("a") == "block a"


async def test_a_reader_that_comes_while_a_load_is_being_ended_begins_anew(make):
    cache, gate = make(), Gate()
    first = asyncio.create_task(cache.get(1, Loads(gate).of(1), 1000))
    await gate.waiting()
    first.cancel()
    await asyncio.sleep(0)  # it leaves; its load is told to end, and has not yet
    fresh = Loads()
    assert await cache.get(1, fresh.of(1), 1000) == "block 1"
    assert fresh.begun == [1]


async def test_a_reader_cancelled_before_its_load_began_leaves_no_trace(make):
    cache, gate = make(100, loads=1), Gate()
    loads = Loads(gate)
    first, second, third = (
        asyncio.create_task(cache.get(key, loads.of(key), 1000)) for key in range(3)
    )
    await gate.waiting()
    await settle()
    second.cancel()
    await settle()
    gate.release()
    await asyncio.gather(first, third)
    assert loads.begun == [0, 2]
    assert second.cancelled()


async def test_a_claim_left_at_once_leaves_no_trace(make):
    """The load's task is cancelled before its first step."""
    cache, loads = make(), Loads()
    cache.start((1,), loads.of(1), 1000).leave()
    await settle()
    assert (loads.begun, cache.in_flight, cache._reserved) == ([], 0, 0)


async def test_one_load_brings_a_run_of_blocks(make):
    cache, gate = make(10), Gate()
    loads = Loads(gate)
    claim = cache.start((3, 4, 5), loads.of(3, 4, 5), 3000)
    other = asyncio.create_task(cache.get(4, loads.of(4), 1000))
    await gate.waiting()
    await settle()
    gate.release()
    with claim:
        assert [await claim.wait(key) for key in (3, 5)] == ["block 3", "block 5"]
    assert await other == "block 4"
    assert loads.begun == [3, 4, 5]
    cache.discard((4,))
    assert [key for key in range(9) if key in cache] == [3, 5]


async def test_what_is_discarded_while_it_is_loaded_is_not_kept(make):
    cache, gate = make(10), Gate()
    old = Loads(gate)
    reader = asyncio.create_task(cache.get(1, old.of(1), 1000))
    run = cache.start((2, 3), old.of(2, 3), 2000)
    await gate.waiting(2)
    cache.discard((1, 3))
    fresh = Loads(gate)
    later = asyncio.create_task(cache.get(1, fresh.of(1), 1000))
    await gate.waiting(3)
    gate.release()
    await reader
    await later
    assert (sorted(old.begun), fresh.begun) == ([1, 2, 3], [1])
    assert await run.wait(3) == "block 3", "who asked before gets it"
    run.leave()
    assert 2 in cache
    assert 3 not in cache
    assert 1 in cache, "the load that began later is kept"


async def test_discarding_a_whole_device_costs_what_is_held(make):
    cache, loads = make(), Loads()
    for key in range(3):
        await cache.get(key, loads.of(key), 1000)
    cache.discard(range(1, 1 << 50))
    assert [key for key in range(3) if key in cache] == [0]
    assert cache.weight == 1000 + ENTRY


async def test_a_load_ahead_runs_only_beside_others_and_outlives_its_readers(make):
    cache, gate = make(6, loads=2), Gate()
    loads = Loads(gate)
    assert cache.start_ahead((1,), loads.of(1), 1000, spare=bool)
    reader = asyncio.create_task(cache.get(1, loads.of(1), 1000))
    await gate.waiting()
    await settle()
    reader.cancel()
    await settle()
    assert loads.ended == []
    assert not cache.start_ahead((2,), loads.of(2), 4000, spare=bool), (
        "more than the share of loads"
    )
    assert cache.start_ahead((3,), loads.of(3), 1000, spare=bool)
    assert not cache.start_ahead((4,), loads.of(4), 1000, spare=bool), "no load is free"
    gate.release()
    assert await cache.get(1, loads.of(1), 1000) == "block 1"
    assert loads.begun == [1, 3]


async def test_a_load_ahead_drops_only_what_may_be_spared(make):
    cache, loads = make(4), Loads()
    for key in (1, 2, 3, 4):
        await cache.get(key, loads.of(key), 1000)
    assert not cache.start_ahead((5,), loads.of(5), 1000, spare=lambda key: key != 1)
    assert 1 in cache
    assert cache.start_ahead((5,), loads.of(5), 1000, spare=lambda key: key == 1)
    await settle()
    assert [key for key in range(6) if key in cache] == [2, 3, 4, 5]


async def test_a_load_ahead_that_fails_is_told_to_nobody_and_tried_again(make):
    cache = make()
    cache.start_ahead((1,), Loads(error=SourceUnavailableError("away")).of(1), 1000, spare=bool)
    await settle()
    gc.collect()
    assert await cache.get(1, Loads().of(1), 1000) == "block 1"


async def test_a_load_that_has_just_ended_leaves_nothing_in_a_closed_cache(make):
    cache = make()
    ready = asyncio.get_running_loop().create_future()

    async def load():
        await ready
        return [Weighed("block", 1000)]

    cache.start((1,), load, 1000)
    await asyncio.sleep(0)
    ready.set_result(None)
    await asyncio.sleep(0)  # the task has ended, and the cache does not know it yet
    assert cache.in_flight == 1
    await cache.close()
    await asyncio.sleep(0)
    assert (cache.in_flight, cache.weight, len(cache)) == (0, 0, 0)


async def test_close_ends_loads_and_readers(make):
    cache, gate = make(100, loads=1), Gate()
    loads = Loads(gate)
    readers = [asyncio.create_task(cache.get(key, loads.of(key), 1000)) for key in range(3)]
    await gate.waiting()
    await cache.close()
    outcomes = await asyncio.gather(*readers, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError] * 3
    assert (loads.begun, loads.ended, len(cache)) == ([0], [0], 0)


async def test_who_is_dropped_for_room_is_told_and_who_is_discarded_is_not():
    dropped = []
    cache = BlockCache(2 * (100 + 256), loads=1, evicted=lambda *what: dropped.append(what))

    def load(value):
        async def made():
            return (Weighed(value, 100),)

        return made

    for key in "abc":
        await cache.get(key, load(key.upper()), 1)
    assert dropped == [("a", "A")]
    cache.discard("b")
    await cache.close()
    assert dropped == [("a", "A")]


async def test_what_is_held_and_what_is_on_its_way_both_take_room(make):
    cache, gate = make(3), Gate()
    loads = Loads(gate)
    assert cache.has_free(3, 3000)
    assert not cache.has_free(3, 3001)
    assert cache.start_ahead((1,), loads.of(1), 1000, spare=bool)
    assert cache.has_free(1, 2000 + ENTRY)
    assert not cache.has_free(2, 2001)
    gate.release()
    await settle()
    assert cache.get_nowait(1) is not None
    assert cache.has_free(2, 2000)
    assert not cache.has_free(2, 2001)
