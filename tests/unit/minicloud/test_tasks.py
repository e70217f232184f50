"""Work that several wait for."""

import asyncio

import pytest

from minicloud.tasks import Shared


def counted(value):
    async def make():
        made.append(value)
        return value

    made = []
    return make, made


async def test_several_who_ask_get_one_outcome():
    make, made = counted("a")
    shared = Shared()
    assert await asyncio.gather(*(shared.get(1, make) for _ in range(3))) == ["a"] * 3
    assert await shared.get(1, make) == "a"
    assert made == ["a"]


async def test_a_failure_is_an_outcome_too():
    made = []

    async def make():
        made.append(1)
        raise ValueError("no")

    shared = Shared()
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            await shared.get(1, make)
    assert made == [1]
    assert shared.peek(1) is None


async def test_what_is_forgotten_is_made_anew():
    make, made = counted("a")
    shared = Shared()
    await shared.get(1, make)
    assert shared.forget(1) == "a"
    assert shared.forget(1) is None
    await shared.get(1, make)
    assert made == ["a", "a"]


async def test_work_that_is_forgotten_goes_on_for_those_who_wait():
    goes_on = asyncio.Event()

    async def make():
        await goes_on.wait()
        return "a"

    shared = Shared()
    waiting = asyncio.create_task(shared.get(1, make))
    await asyncio.sleep(0)
    assert shared.forget(1) is None
    anew, _ = counted("b")
    assert await shared.get(1, anew) == "b"
    goes_on.set()
    assert await waiting == "a"
    assert sorted(await shared.end()) == ["a", "b"]


async def test_the_last_one_to_leave_takes_the_work_along():
    ended = asyncio.Event()

    async def make():
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    shared = Shared()
    waiting = [asyncio.create_task(shared.get(1, make)) for _ in range(2)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.gather(waiting[0], return_exceptions=True)
    assert not ended.is_set()
    waiting[1].cancel()
    await ended.wait()
    make, _ = counted("b")
    assert await shared.get(1, make) == "b"


async def test_the_end_cancels_what_is_under_way_and_gives_what_is_there():
    make, _ = counted("a")
    shared = Shared()
    await shared.get(1, make)
    waiting = asyncio.create_task(shared.get(2, asyncio.Event().wait))
    await asyncio.sleep(0)
    assert await shared.end() == ["a"]
    with pytest.raises(asyncio.CancelledError):
        await waiting
