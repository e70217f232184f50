"""Who may ask a host, in which order, and who loses a place that lies idle."""

import asyncio

import pytest

from nbdserve.sources import httpgate
from nbdserve.sources.httpgate import Gate

ONE, TWO = "one source", "another"


@pytest.fixture
def gate():
    made = Gate()
    made.join(ONE, 3)
    return made


async def settled():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_as_many_as_the_limit_pass_and_the_next_waits_for_a_place(gate):
    slots = [await gate.acquire(ONE) for _ in range(3)]
    waiting = asyncio.create_task(gate.acquire(ONE))
    await settled()
    assert not waiting.done()
    slots[1].release()
    slots[1].release()
    assert (await waiting) is not None
    assert gate.in_flight == 3


async def test_who_came_first_is_let_in_first(gate):
    held = [await gate.acquire(ONE) for _ in range(3)]
    order = []

    async def enter(name):
        await gate.acquire(ONE)
        order.append(name)

    tasks = [asyncio.create_task(enter(name)) for name in "abc"]
    await settled()
    assert gate.acquire_nowait(ONE) is None
    for slot in held:
        slot.release()
        await settled()
    assert order == ["a", "b", "c"]
    await asyncio.gather(*tasks)


async def test_a_source_is_held_to_its_own_bound_and_keeps_no_other_waiting(gate):
    gate.join(TWO, 1)
    first = await gate.acquire(TWO)
    second = asyncio.create_task(gate.acquire(TWO))
    await settled()
    assert gate.acquire_nowait(ONE) is not None, "it passes the one who waits for his own"
    assert not second.done()
    first.release()
    await second


async def test_the_highest_bound_of_those_there_holds(gate):
    gate.join(TWO, 50)
    assert gate.window.most == 50
    gate.leave(TWO)
    gate.leave(TWO)
    assert gate.window.most == 3


async def test_a_cancelled_wait_takes_no_place(gate):
    slots = [await gate.acquire(ONE) for _ in range(3)]
    waiting = asyncio.create_task(gate.acquire(ONE))
    await settled()
    slots[0].release()  # the place is his, but he does not know yet
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert gate.in_flight == 2
    assert gate.acquire_nowait(ONE) is not None


async def test_an_idle_place_is_taken_away_for_who_waits(gate, monkeypatch):
    monkeypatch.setattr(httpgate, "_IDLE", 0.05)
    slots = [await gate.acquire(ONE) for _ in range(3)]
    dropped = []
    slots[2].park(lambda: dropped.append(2))
    slots[0].park(lambda: dropped.append(0))
    slots[2].unpark()
    assert await asyncio.wait_for(gate.acquire(ONE), 30)
    assert dropped == [0], "busy ones keep theirs"
    assert slots[0].evicted
    assert gate.in_flight == 3


async def test_an_idle_place_stays_while_nobody_waits(gate):
    slots = [await gate.acquire(ONE) for _ in range(3)]
    slots[0].park(lambda: pytest.fail("taken away for nobody"))
    gate.watch()
    assert gate._timer is None


async def test_an_idle_place_of_others_is_not_taken_where_it_helps_nobody(gate):
    gate.join(TWO, 1)
    mine = await gate.acquire(TWO)
    other = await gate.acquire(ONE)
    other.park(lambda: pytest.fail("that makes no room for a source at its own bound"))
    waiting = asyncio.create_task(gate.acquire(TWO))
    await settled()
    gate._timer.cancel()
    gate._take_idle()
    other.idle_since -= 10
    gate._take_idle()
    mine.release()
    await waiting


async def test_low_requests_leave_room_and_come_last(gate):
    gate.join(ONE, 4)
    low = await gate.acquire(ONE, low=True)
    another = await gate.acquire(ONE, low=True)
    third = asyncio.create_task(gate.acquire(ONE, low=True))
    await settled()
    assert not third.done(), "half of the places stay free"
    high = [await gate.acquire(ONE) for _ in range(2)]
    waiting = asyncio.create_task(gate.acquire(ONE))
    await settled()
    low.release()
    await waiting
    assert not third.done()
    for slot in [another, waiting.result(), *high]:
        slot.release()
    await third


async def test_one_extra_passes_beyond_the_limit_but_not_beyond_the_bound(gate):
    gate.join(ONE, 5)
    assert gate.window.limit == 4
    for _ in range(4):
        await gate.acquire(ONE)
    assert gate.acquire_nowait(ONE) is None
    assert gate.acquire_nowait(ONE, extra=True) is not None
    assert gate.acquire_nowait(ONE, extra=True) is None
