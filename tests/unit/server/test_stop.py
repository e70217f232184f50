"""What SIGHUP does: files are read anew off the event loop, never twice at once, never too few."""

import asyncio
import os
import signal
import threading

from nbdserve.server.stop import Stop


async def until(true):
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110 -- what a thread does sets no event of ours
            await asyncio.sleep(0)


async def test_hang_ups_while_files_are_read_have_them_read_once_more():
    stop, go_on, begun, threads = Stop(), threading.Event(), [], set()

    def read():
        begun.append(1)
        threads.add(threading.current_thread())
        assert go_on.wait(30)

    stop.on_hang_up = read
    with stop.on_signals():
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: begun)
        for count in (1, 2, 3):
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda count=count: stop._hang_ups == count)
        assert len(begun) == 1
        go_on.set()
        await until(lambda: len(begun) == 2)
        await until(lambda: stop._hanging_up is None)
    assert len(begun) == 2
    assert threading.main_thread() not in threads


async def test_a_hang_up_with_nothing_to_read_is_told(caplog):
    stop = Stop()
    with stop.on_signals():
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: "does not reload" in caplog.text)
