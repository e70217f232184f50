"""Who may use an exclusive export and who may write, decision by decision."""

import asyncio

import pytest

from nbdserve.errors import ReadOnlyError
from nbdserve.server.lease import Lease


class Client:
    """A client that leaves when the test says so."""

    def __init__(self, peer):
        self.peer = peer
        self.is_leaving = False

    def abort(self):
        self.is_leaving = True


@pytest.fixture
def lease():
    return Lease("guest/web1")


@pytest.fixture
def clients():
    return [Client(f"10.0.0.{n}:41000") for n in (1, 2, 3)]


def may_write(lease, client):
    """Try a write that ends at once."""
    try:
        begun = lease.begin_write_nowait(client)
    except ReadOnlyError:
        return False
    assert begun, "nobody else's is under way"
    lease.end_write(client)
    return True


async def handing_over(lease, first, second, seconds=3600.0):
    """The first holds it, a handover runs, the second is in."""
    assert await lease.enter(first) is None
    lease.begin_handover(seconds)
    assert await lease.enter(second) is None


async def test_one_client_comes_in_and_writes_and_a_second_is_refused_by_name(lease, clients):
    first, second, _ = clients
    assert await lease.enter(first) is None
    assert may_write(lease, first)
    text = await lease.enter(second)
    assert text.startswith('export "guest/web1" is in use by 10.0.0.1:41000; ')
    assert lease.facts() == ("10.0.0.1:41000", None, None, False)


async def test_when_the_first_has_left_the_next_comes_in(lease, clients):
    first, second, _ = clients
    await lease.enter(first)
    lease.leave(first)
    assert await lease.enter(second) is None
    lease.leave(first)  # once more harms nobody
    assert lease.facts().holder == second.peer
    assert not may_write(lease, first)


async def test_who_comes_waits_for_one_that_is_leaving(lease, clients):
    first, second, _ = clients
    await lease.enter(first)
    first.abort()
    coming = asyncio.create_task(lease.enter(second))
    await asyncio.sleep(0)
    assert not coming.done()
    lease.leave(first)
    assert await coming is None
    assert lease.facts().holder == second.peer


async def test_one_that_gives_up_waiting_keeps_no_other_from_coming_in(lease, clients):
    first, second, third = clients
    await lease.enter(first)
    first.abort()
    coming = [asyncio.create_task(lease.enter(one)) for one in (second, third)]
    await asyncio.sleep(0)
    coming[0].cancel()
    await asyncio.wait(coming[:1])
    lease.leave(first)
    assert await coming[1] is None
    assert lease.facts().holder == third.peer


async def test_of_two_that_wait_one_comes_in_and_the_other_is_refused(lease, clients):
    first, second, third = clients
    await lease.enter(first)
    first.abort()
    coming = [asyncio.create_task(lease.enter(one)) for one in (second, third)]
    await asyncio.sleep(0)
    lease.leave(first)
    assert sorted([type(await one) for one in coming], key=str) == [type(None), str]


async def test_a_handover_lets_one_more_in_and_no_third(lease, clients):
    first, second, third = clients
    await handing_over(lease, first, second)
    assert may_write(lease, first), "the lease stays with the first"
    assert "10.0.0.1:41000 and 10.0.0.2:41000, in a handover" in await lease.enter(third)
    holder, other, seconds, passed = lease.facts()
    assert (holder, other, passed) == (first.peer, second.peer, False)
    assert seconds == pytest.approx(3600, abs=60)


async def test_the_first_write_of_the_second_takes_the_lease_for_good(lease, clients):
    first, second, _ = clients
    await handing_over(lease, first, second)
    assert may_write(lease, second)
    with pytest.raises(ReadOnlyError, match=r"was handed over to 10\.0\.0\.2:41000"):
        lease.begin_write_nowait(first)
    assert may_write(lease, second)
    assert lease.facts()[:2] == (second.peer, first.peer)


async def test_when_the_first_leaves_before_the_second_wrote_the_second_holds_it(lease, clients):
    first, second, third = clients
    await handing_over(lease, first, second)
    lease.leave(first)
    assert lease.facts() == (second.peer, None, None, False)
    assert may_write(lease, second)
    assert await lease.enter(third) is not None, "the handover has ended"


async def test_when_the_first_leaves_after_it_handed_over_all_is_as_usual(lease, clients):
    first, second, third = clients
    await handing_over(lease, first, second)
    may_write(lease, second)
    lease.leave(first)
    assert lease.facts() == (second.peer, None, None, False)
    assert await lease.enter(third) is not None


async def test_when_the_first_leaves_alone_the_handover_ends_too(lease, clients):
    first, second, third = clients
    await lease.enter(first)
    lease.begin_handover(3600)
    lease.leave(first)
    await lease.enter(second)
    assert await lease.enter(third) is not None


async def test_a_second_that_goes_before_it_wrote_may_come_again(lease, clients):
    first, second, third = clients
    await handing_over(lease, first, second)
    lease.leave(second)
    assert may_write(lease, first)
    assert await lease.enter(third) is None
    assert lease.facts()[:2] == (first.peer, third.peer)


async def test_a_new_holder_that_breaks_off_may_come_again_but_the_first_never_writes(
    lease, clients
):
    first, second, third = clients
    await handing_over(lease, first, second)
    may_write(lease, second)
    lease.leave(second)
    assert not may_write(lease, first)
    assert await lease.enter(third) is None
    assert may_write(lease, third)
    assert not may_write(lease, first)


async def test_its_end_drops_the_second_that_has_not_written(lease, clients):
    first, second, _ = clients
    await handing_over(lease, first, second)
    assert lease.end_handover() == second.peer
    assert second.is_leaving
    assert not first.is_leaving
    assert not may_write(lease, second), "though it has not gone yet"
    assert may_write(lease, first)
    lease.leave(second)
    assert lease.facts() == (first.peer, None, None, False)


async def test_its_end_drops_the_first_once_it_has_handed_over(lease, clients):
    first, second, third = clients
    await handing_over(lease, first, second)
    may_write(lease, second)
    assert lease.end_handover() == first.peer
    assert first.is_leaving
    assert not may_write(lease, first)
    lease.leave(first)
    assert lease.facts() == (second.peer, None, None, False)
    assert await lease.enter(third) is not None


async def test_the_end_of_no_handover_drops_nobody(lease, clients):
    await lease.enter(clients[0])
    assert lease.end_handover() is None
    assert may_write(lease, clients[0])


async def test_when_its_time_is_over_it_ends(lease, clients):
    first, second, _ = clients
    await handing_over(lease, first, second, 0.0)
    for _ in range(3):  # the timer fires in one of these turns
        await asyncio.sleep(0)
    assert second.is_leaving
    assert lease.facts().seconds is None


async def test_asked_for_again_it_lasts_longer(lease, clients):
    first, second, _ = clients
    await handing_over(lease, first, second, 0.0)
    lease.begin_handover(3600)
    for _ in range(3):
        await asyncio.sleep(0)
    assert not second.is_leaving
    assert may_write(lease, second)


async def test_a_write_waits_for_what_the_holder_before_has_under_way(lease, clients):
    first, second, _ = clients
    await handing_over(lease, first, second)
    await lease.begin_write(first)
    await lease.begin_write(first)
    assert not lease.begin_write_nowait(second)
    writing = asyncio.create_task(lease.begin_write(second))
    for _ in range(2):
        await asyncio.sleep(0)
        assert not writing.done()
        lease.end_write(first)
    await writing
    lease.end_write(second)
    assert not may_write(lease, first)


async def test_a_write_of_one_that_was_dropped_is_waited_for_too(lease, clients):
    first, second, _ = clients
    await lease.enter(first)
    await lease.begin_write(first)
    lease.leave(first)
    assert await lease.enter(second) is None
    assert not lease.begin_write_nowait(second)
    lease.end_write(first)
    assert may_write(lease, second)


async def test_one_that_loses_the_lease_while_it_waits_to_write_is_refused(lease, clients):
    first, second, third = clients
    await handing_over(lease, first, second)
    await lease.begin_write(first)
    writing = asyncio.create_task(lease.begin_write(second))
    await asyncio.sleep(0)
    lease.leave(second)
    lease.leave(first)
    await lease.enter(third)
    lease.end_write(first)
    with pytest.raises(ReadOnlyError):
        await writing
