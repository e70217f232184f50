import asyncio
import threading

import pytest

from nbdserve.unbroken import run_unbroken


class Held:
    """A blocking call that tells when it has begun and ends when it is let go."""

    def __init__(self):
        self.begun = asyncio.Event()
        self.let_go = threading.Event()
        self.ended = False
        self._loop = asyncio.get_running_loop()

    def __call__(self, result):
        self._loop.call_soon_threadsafe(self.begun.set)
        self.let_go.wait()
        self.ended = True
        if isinstance(result, Exception):
            raise result
        return result


async def test_it_returns_what_the_call_returns():
    assert await run_unbroken(divmod, 7, 2) == (3, 1)


async def test_it_raises_what_the_call_raises():
    with pytest.raises(ZeroDivisionError):
        await run_unbroken(divmod, 7, 0)


@pytest.mark.parametrize("cancellations", [1, 3])
async def test_cancelled_it_waits_for_the_call_and_then_is_cancelled(cancellations):
    call = Held()
    caller = asyncio.ensure_future(run_unbroken(call, 1))
    await call.begun.wait()
    for _ in range(cancellations):
        caller.cancel()
        await asyncio.wait({caller}, timeout=0)
    assert not caller.done()
    call.let_go.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert call.ended


async def test_a_result_nobody_gets_is_undone():
    call, undone = Held(), []
    caller = asyncio.ensure_future(run_unbroken(call, "file", undo=undone.append))
    await call.begun.wait()
    caller.cancel()
    call.let_go.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert undone == ["file"]


async def test_a_failure_nobody_gets_is_swallowed_and_nothing_is_undone():
    call, undone = Held(), []
    caller = asyncio.ensure_future(run_unbroken(call, OSError("gone"), undo=undone.append))
    await call.begun.wait()
    caller.cancel()
    call.let_go.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert undone == []
