"""What is undone, in which order, and that nothing stops it half-way."""

import asyncio
import logging

import pytest

from minicloud.booting.undo import Undo, unbroken
from minicloud.errors import StorageError


def steps(undo, done, *names):
    for name in names:

        async def step(name=name):
            done.append(name)

        undo.by(name, step)


async def test_nothing_is_undone_when_all_went_well():
    done = []
    async with Undo() as undo:
        steps(undo, done, "export")
    assert done == []


async def test_the_last_step_is_undone_first():
    done = []

    async def work():
        async with Undo() as undo:
            steps(undo, done, "export", "seed", "domain")
            raise StorageError("device", "no space")

    with pytest.raises(StorageError):
        await work()
    assert done == ["domain", "seed", "export"]


async def test_what_cannot_be_undone_is_told_and_keeps_nothing_from_the_rest(caplog):
    done = []

    async def fails():
        raise StorageError("busy", "it has 1 clients")

    async def work():
        async with Undo() as undo:
            steps(undo, done, "export guest/web1")
            undo.by("export seed/web1", fails)
            raise KeyError

    with caplog.at_level(logging.ERROR), pytest.raises(KeyError):
        await work()
    assert done == ["export guest/web1"]
    assert caplog.messages == ["export seed/web1 is left behind: it has 1 clients"]


async def test_a_bug_in_one_step_keeps_nothing_from_the_rest(caplog):
    done = []

    async def fails():
        raise ValueError("no number")

    async def work():
        async with Undo() as undo:
            steps(undo, done, "export guest/web1")
            undo.by("guest web1", fails)
            raise KeyError

    with caplog.at_level(logging.ERROR), pytest.raises(KeyError):
        await work()
    assert done == ["export guest/web1"]
    assert caplog.messages[-1] == (
        "guest web1 is left behind: ValueError: no number; a bug: report it"
    )


async def test_cancelled_twice_it_still_undoes_everything():
    done = []
    going, goes_on = asyncio.Event(), asyncio.Event()

    async def slow():
        going.set()
        await goes_on.wait()
        done.append("domain")

    async def work():
        async with Undo() as undo:
            steps(undo, done, "export")
            undo.by("domain", slow)
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    await going.wait()
    task.cancel()
    await asyncio.sleep(0)
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["domain", "export"]


async def test_unbroken_work_goes_to_its_end_before_the_cancellation_counts():
    goes_on = asyncio.Event()
    done = []

    async def work():
        await goes_on.wait()
        done.append("created")

    task = asyncio.create_task(unbroken(work()))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["created"]


async def test_unbroken_work_gives_what_it_gives():
    async def work():
        return 7

    assert await unbroken(work()) == 7
