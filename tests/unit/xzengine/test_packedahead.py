"""Blocks fetched ahead: in order, when the link is about to be idle, within their memory."""

import asyncio

import pytest

from nbdserve.errors import SourceUnavailableError
from nbdserve.xzengine.intake import Intake
from nbdserve.xzengine.packedahead import PackedAhead

MIB = 1 << 20


class Link:
    """Blocks of a MiB, each brought in pieces when the test says so."""

    def __init__(self, *, limit=4 * MIB, lengths=()):
        self.lengths = dict(lengths)
        self.begun = []
        self.closed = set()
        self.queues = {}
        self.ahead = PackedAhead(limit, self.length, self.make)

    def length(self, number):
        return self.lengths.get(number, MIB)

    def make(self, number, limit):
        self.begun.append(number)
        self.queues[number] = asyncio.Queue()
        return Intake(
            self.stream(number), self.length(number), limit=limit, moved=self.ahead.move_on
        )

    async def stream(self, number):
        try:
            while True:
                piece = await self.queues[number].get()
                if isinstance(piece, Exception):
                    raise piece
                yield bytes(piece)
        finally:
            self.closed.add(number)

    async def bring(self, number, piece=MIB):
        self.queues[number].put_nowait(piece)
        await turns()


async def turns():
    for _ in range(10):
        await asyncio.sleep(0)


def nobody_turned_away(_):
    return False


@pytest.fixture
async def link():
    made = []

    def make(**options):
        made.append(Link(**options))
        return made[-1]

    yield make
    for link in made:
        await link.ahead.close()


async def test_the_next_begins_when_little_of_the_last_is_missing(link):
    link = link(lengths={1: 3 * MIB})
    link.ahead.want([1, 2, 3], nobody_turned_away)
    assert link.begun == [1]
    await link.bring(1, MIB)
    await link.bring(1, MIB)
    assert link.begun == [1]
    await link.bring(1, 1)
    assert link.begun == [1, 2]


async def test_of_tiny_ones_only_so_many_come_at_once(link):
    link = link(lengths=dict.fromkeys(range(10), 100))
    link.ahead.want(range(10), nobody_turned_away)
    assert link.begun == [0, 1, 2]
    await link.bring(0, 100)
    assert link.begun == [0, 1, 2, 3]


async def test_nothing_begins_while_others_fetch_much(link):
    link = link()
    other = link.ahead.watch(link.make(9, 4 * MIB))
    link.ahead.want([1], nobody_turned_away)
    assert link.begun == [9]
    other.start()
    await turns()
    await link.bring(9, 1)
    assert link.begun == [9, 1]
    await other.close()


async def test_what_has_no_room_waits_until_something_is_taken(link):
    link = link(limit=2 * MIB)
    link.ahead.want([1, 2, 3], nobody_turned_away)
    for number in (1, 2):
        await link.bring(number, MIB)
    assert link.begun == [1, 2]
    taken = link.ahead.take(1)
    link.ahead.move_on()
    assert link.begun == [1, 2], "its bytes lie there still"
    assert await taken.take() == [bytes(MIB)]
    assert link.begun == [1, 2, 3]
    await taken.close()
    assert link.ahead.take(1) is None


async def test_of_a_block_too_large_only_the_beginning_is_held(link):
    link = link(limit=2 * MIB, lengths={1: 100 * MIB})
    link.ahead.want([1], nobody_turned_away)
    for _ in range(3):
        await link.bring(1)
    assert link.queues[1].qsize() == 1, "it is received when the taker has taken"


async def test_it_is_dropped_for_others_only_when_its_readers_have_turned_away(link):
    link = link(limit=MIB)
    link.ahead.want([1], nobody_turned_away)
    await link.bring(1)
    link.ahead.want([5], nobody_turned_away)
    assert link.begun == [1]
    link.ahead.want([5], lambda number: number == 1)
    assert link.begun == [1, 5]
    await turns()
    assert link.closed == {1}


async def test_what_somebody_fetches_himself_is_wanted_no_more(link):
    link = link()
    link.ahead.want([1, 2], nobody_turned_away)
    assert link.ahead.take(2) is None
    await link.bring(1)
    assert link.begun == [1]


async def test_who_comes_after_a_failure_tries_himself(link):
    link = link()
    link.ahead.want([1], nobody_turned_away)
    await link.bring(1, SourceUnavailableError("away"))
    assert link.ahead.take(1) is None


async def test_the_end_closes_all_streams(link):
    link = link(lengths={1: 1, 2: 1})
    link.ahead.want([1, 2], nobody_turned_away)
    await turns()
    await link.ahead.close()
    assert link.closed == {1, 2}
