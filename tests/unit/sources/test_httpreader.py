"""Deadlines, hedges, places and budgets, with servers that answer when they are told to."""

import asyncio
import contextlib
import errno
from contextlib import aclosing

import pytest

from httpsources import CONTENTS, servers
from nbdserve.errors import DeviceError
from nbdserve.sources import httpgate, httppace
from nbdserve.sources.httpopening import TAIL
from webserver import held, silent, status, webserver


async def warmed(source):
    """Read often enough that the usual time to a first byte is known."""
    for at in range(0, 100_000, 10_000):
        await source.read(at, 100)


async def test_a_read_past_its_deadline_fails_with_a_text(web, make):
    source = await make(web.url(), deadline="200ms")
    web.always = silent
    with pytest.raises(DeviceError, match=r"127\.0\.0\.1.*deadline=0\.2s") as caught:
        await source.read(0, 100)
    assert caught.value.errno == errno.EIO
    web.always = None
    assert await source.read(0, 100) == CONTENTS[:100]
    assert source.status()["parallel_now"] == 0


async def test_opening_keeps_the_deadline_too(web, make):
    web.always = silent
    with pytest.raises(DeviceError, match=r"127\.0\.0\.1.*deadline=0\.2s"):
        await make(web.url(), deadline="200ms")


async def test_a_trickle_does_not_renew_the_deadline_of_a_read(web, make):
    source = await make(web.url(), deadline="300ms")

    async def trickle(server, asked):
        whole = server.ranged(asked)
        for byte in whole:
            yield bytes([byte])
            await asyncio.sleep(0.001)

    web.always = trickle
    with pytest.raises(DeviceError, match="deadline"):
        await source.read(0, 100_000)


async def test_a_silent_answer_is_overtaken_on_another_connection(web, make):
    source = await make(web.url())
    await warmed(source)
    web.asked.clear()
    web.script = [silent]
    async with asyncio.timeout(20):  # without a hedge, `timeout` would be 30 s
        assert await source.read(5000, 1000) == CONTENTS[5000:6000]
    assert [asked.range for asked in web.asked] == ["bytes=5000-5999"] * 2
    assert source.status()["hedges"] == 1
    assert source.retries == 0
    assert source.status()["parallel_now"] == 0, "the loser is gone"


async def test_a_silent_answer_is_overtaken_at_another_mirror(make):
    async with servers(CONTENTS, CONTENTS) as (one, two):
        source = await make(one.url(), two.url())
        one.always = silent
        async with asyncio.timeout(20):
            assert await source.read(5000, 1000) == CONTENTS[5000:6000]
        assert two.asked[-1].range == "bytes=5000-5999"


async def test_the_first_to_deliver_wins_even_if_it_was_asked_first(web, make):
    source = await make(web.url())
    await warmed(source)
    late = asyncio.Event()
    web.script = [held(late), silent]
    reading = asyncio.create_task(source.read(5000, 1000))
    async with asyncio.timeout(20):
        while source.status()["hedges"] == 0 or web.script:  # noqa: ASYNC110 -- a plain counter
            await asyncio.sleep(0.01)
        late.set()
        assert await reading == CONTENTS[5000:6000]


@pytest.fixture
def impatient(monkeypatch):
    """Judge throughput every 0.3 s."""
    monkeypatch.setattr(httppace, "_WINDOW", 0.3)


async def test_an_answer_that_stops_midway_is_overtaken_from_there(web, make, impatient):
    source = await make(web.url())
    await warmed(source)
    never = asyncio.Event()
    web.script = [held(never, after=1000)]
    web.asked.clear()
    async with asyncio.timeout(20):
        assert await source.read(0, 5000) == CONTENTS[:5000]
    assert [asked.range for asked in web.asked] == ["bytes=0-4999", "bytes=1000-4999"]


async def test_bytes_of_a_lead_that_went_on_are_not_taken_twice(web, make, impatient):
    """The lead goes on after its rival was sent off, and the rival repeats those bytes."""
    source = await make(web.url())
    await warmed(source)
    more, go = asyncio.Event(), asyncio.Event()

    async def in_steps(server, asked):
        head, _, body = server.ranged(asked).partition(b"\r\n\r\n")
        yield head + b"\r\n\r\n" + body[:1000]
        await more.wait()
        yield body[1000:3000]
        await asyncio.Event().wait()

    web.script = [in_steps, held(go)]
    taken = bytearray()
    async with asyncio.timeout(30), aclosing(source.stream(0, 5000)) as pieces:
        async for piece in pieces:
            taken += piece
            if len(taken) == 1000:
                asyncio.get_running_loop().call_soon(
                    asyncio.ensure_future, release_when(source, more)
                )
            if len(taken) == 3000:
                go.set()
    assert taken == CONTENTS[:5000]
    assert source.status()["hedges"] == 1


async def release_when(source, event):
    while source.status()["hedges"] == 0:  # noqa: ASYNC110 -- a plain counter
        await asyncio.sleep(0.01)
    event.set()


async def test_hedges_are_few_however_slow_all_is(web, make):
    source = await make(web.url(), timeout="300ms", retry_for="300ms")
    await warmed(source)
    web.always = silent
    for _ in range(4):
        with contextlib.suppress(DeviceError):
            await source.read(0, 100)
    assert source.status()["hedges"] <= 3


@pytest.mark.parametrize("given", [{"hedge": "no"}, {"max_requests": "12"}, {"connections": "1"}])
async def test_no_hedge_where_it_is_off_or_would_cost_too_much(web, make, given):
    source = await make(web.url(), timeout="700ms", **given)
    await warmed(source)
    web.script = [silent]
    with contextlib.suppress(DeviceError):  # the budget of twelve is spent by then
        await source.read(5000, 1000)
    assert source.status()["hedges"] == 0


async def test_the_budget_of_requests_ends_reads_and_not_the_source(web, make):
    source = await make(web.url(), max_requests=3)
    await source.read(0, 100)
    await source.read(0, 100)
    with pytest.raises(DeviceError, match="max-requests=3 is spent"):
        await source.read(0, 100)
    assert await source.read(len(CONTENTS) - 100, 100) == CONTENTS[-100:], "this is at hand"
    assert len(web.asked) == 3


async def test_the_budget_of_bytes_counts_what_came(web, make):
    source = await make(web.url(), max_bytes=TAIL + 1000)
    async with aclosing(source.stream(0, 1000)):
        pass
    assert await source.read(0, 600) == CONTENTS[:600]
    with pytest.raises(DeviceError, match=f"max-bytes={TAIL + 1000} is spent"):
        await source.read(0, 600)
    assert await source.read(0, 400) == CONTENTS[:400]


async def test_a_stream_nobody_takes_from_gives_its_place_to_a_read(make, monkeypatch):
    monkeypatch.setattr(httpgate, "_IDLE", 0.05)
    async with webserver(bytes(32 << 20)) as web:
        source = await make(web.url(), connections=1)
        async with asyncio.timeout(30), aclosing(source.stream(0, 20 << 20)) as pieces:
            done = len(await anext(pieces))
            assert await source.read(25 << 20, 100) == bytes(100), "the taker itself wants it"
            assert source.status()["evicted_streams"] == 0, "it has not come back yet"
            async for piece in pieces:
                done += len(piece)
        assert done == 20 << 20
        assert source.status()["evicted_streams"] == 1
        assert source.retries == 0


async def test_a_stream_keeps_no_place_while_its_last_piece_is_worked_on(web, make):
    source = await make(web.url())
    done = 0
    async with aclosing(source.stream(0, 50_000)) as pieces:
        while done < 50_000:
            done += len(await anext(pieces))
        assert source.status()["parallel_now"] == 0


async def test_a_server_that_pushes_back_gets_fewer_requests(web, make):
    source = await make(web.url())
    web.script = [status("503 Busy")]
    await source.read(0, 100)
    assert source.status()["parallel_limit"] == 2


async def test_connections_cut_after_much_work_are_no_push(make):
    contents = bytes(6 << 20)
    async with webserver(contents) as web:
        source = await make(web.url())

        def cut(server, asked):
            head, _, body = server.ranged(asked).partition(b"\r\n\r\n")
            return head + b"\r\n\r\n" + body[: 2 << 20]

        web.script = [cut, cut]
        assert await source.read(0, 5 << 20) == contents[: 5 << 20]
        assert source.status()["parallel_limit"] == 4
        assert source.status()["bytes_received"] == (5 << 20) + TAIL, "none came twice"


async def test_cancelling_a_race_leaves_nothing_behind(web, make):
    source = await make(web.url())
    await warmed(source)
    web.script = [silent, silent]
    reading = asyncio.create_task(source.read(5000, 1000))
    async with asyncio.timeout(20):
        while source.status()["hedges"] == 0 or web.script:  # noqa: ASYNC110 -- a plain counter
            await asyncio.sleep(0.01)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert source.status()["parallel_now"] == 0
    assert await source.read(0, 100) == CONTENTS[:100]
