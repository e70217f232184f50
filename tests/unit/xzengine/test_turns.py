"""Turns at the cores: the urgent first, a running step waited for, none lost."""

import asyncio
import threading

import pytest

from nbdserve.xzengine.turns import Turns


class Steps:
    """Steps that note their order, of which the first holds its thread until it is told."""

    def __init__(self):
        self.begun = threading.Event()
        self.go = threading.Event()
        self.order = []

    def first(self):
        self.begun.set()
        self.go.wait()
        self.order.append("first")

    def step(self, name):
        return lambda: self.order.append(name)


def waited_for():
    return True


def idle():
    return False


async def begun(steps, turns):
    task = asyncio.create_task(turns.run(steps.first, urgent=idle))
    await asyncio.get_running_loop().run_in_executor(None, steps.begun.wait)
    return task


async def test_the_urgent_overtake_the_others_and_each_keeps_its_order():
    turns, steps = Turns(1), Steps()
    tasks = [await begun(steps, turns)]
    for name, urgent in (("a", idle), ("b", waited_for), ("c", idle), ("d", waited_for)):
        tasks.append(asyncio.create_task(turns.run(steps.step(name), urgent=urgent)))
        await asyncio.sleep(0)
    steps.go.set()
    await asyncio.gather(*tasks)
    assert steps.order == ["first", "b", "d", "a", "c"]


async def test_one_that_becomes_urgent_while_it_waits_overtakes_too():
    turns, steps, readers = Turns(1), Steps(), []
    first = await begun(steps, turns)
    waiting = [
        asyncio.create_task(turns.run(steps.step(name), urgent=urgent))
        for name, urgent in (("a", idle), ("b", lambda: bool(readers)), ("c", idle))
    ]
    await asyncio.sleep(0)
    readers.append("of b")
    steps.go.set()
    await asyncio.gather(first, *waiting)
    assert steps.order == ["first", "b", "a", "c"]


async def test_a_step_that_has_begun_is_waited_for_when_it_is_cancelled():
    turns, steps = Turns(1), Steps()
    task = await begun(steps, turns)
    task.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    steps.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert steps.order == ["first"]


async def test_one_that_waits_can_be_cancelled_and_the_turn_goes_on():
    turns, steps = Turns(1), Steps()
    first = await begun(steps, turns)
    second = asyncio.create_task(turns.run(steps.step("second"), urgent=waited_for))
    third = asyncio.create_task(turns.run(steps.step("third"), urgent=idle))
    await asyncio.sleep(0)
    second.cancel()
    steps.go.set()
    await asyncio.gather(first, third)
    assert steps.order == ["first", "third"]
    assert await turns.run(lambda: 5, urgent=idle) == 5, "the turn came back"


async def test_a_step_that_fails_raises_and_gives_its_turn_on():
    turns = Turns(1)
    with pytest.raises(ZeroDivisionError):
        await turns.run(lambda: 1 // 0, urgent=idle)
    assert await turns.run(lambda: 5, urgent=idle) == 5
