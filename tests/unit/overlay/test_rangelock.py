import asyncio

import pytest

from nbdserve.overlay.rangelock import RangeLock


class Holder:
    """A task that holds a range until it is told to let go."""

    def __init__(self, lock, first, stop):
        self.has = asyncio.Event()
        self.let_go = asyncio.Event()
        self.task = asyncio.ensure_future(self._hold(lock, first, stop))

    async def _hold(self, lock, first, stop):
        async with lock.hold(first, stop):
            self.has.set()
            await self.let_go.wait()

    async def release(self):
        self.let_go.set()
        await self.task


@pytest.fixture
async def holders():
    made = []
    lock = RangeLock()

    def make(first, stop):
        made.append(Holder(lock, first, stop))
        return made[-1]

    yield make
    for holder in made:
        holder.task.cancel()
    await asyncio.gather(*(holder.task for holder in made), return_exceptions=True)
    assert lock._claims == []


async def turns(count=5):
    loop = asyncio.get_running_loop()
    for _ in range(count):
        turn = loop.create_future()
        loop.call_soon(turn.set_result, None)
        await turn


@pytest.mark.parametrize("other", [(0, 5), (10, 12)])
async def test_ranges_that_share_nothing_are_held_together(holders, other):
    one, two = holders(5, 10), holders(*other)
    await one.has.wait()
    await two.has.wait()


@pytest.mark.parametrize("other", [(5, 10), (0, 6), (9, 20), (6, 7), (0, 20)])
async def test_ranges_that_overlap_are_held_one_after_the_other(holders, other):
    one, two = holders(5, 10), holders(*other)
    await one.has.wait()
    await turns()
    assert not two.has.is_set()
    await one.release()
    await two.has.wait()


async def test_a_later_claim_does_not_overtake_an_earlier_one_that_waits(holders):
    one, two, three = holders(0, 5), holders(4, 10), holders(8, 12)
    await one.has.wait()
    await turns()
    assert not two.has.is_set()
    assert not three.has.is_set()
    await one.release()
    await two.has.wait()
    await turns()
    assert not three.has.is_set()
    await two.release()
    await three.has.wait()


async def test_a_cancelled_claim_lets_the_next_one_pass(holders):
    one, two, three = holders(0, 5), holders(4, 10), holders(8, 12)
    await one.has.wait()
    await turns()
    two.task.cancel()
    await three.has.wait()
    assert one.has.is_set()


async def test_a_failure_inside_releases_the_range():
    lock = RangeLock()
    with pytest.raises(ValueError, match="inside"):
        async with lock.hold(0, 1):
            raise ValueError("inside")
    async with lock.hold(0, 1):
        pass
