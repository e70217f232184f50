"""Threads that nobody waits for."""

import asyncio
import gc
import subprocess
import sys
import threading
import time

import pytest

from minicloud.daemons import Daemons


async def test_work_is_done_and_its_outcome_comes_back():
    daemons = Daemons("t")
    assert await daemons.submit(lambda: 1) == 1
    with pytest.raises(ZeroDivisionError):
        await daemons.submit(lambda: 1 // 0)
    daemons.end()


async def test_what_overlaps_gets_threads_of_its_own_and_no_more_than_allowed():
    daemons = Daemons("t", 2)
    barrier, leave = threading.Barrier(2), threading.Event()
    names = set()

    def work():
        names.add(threading.current_thread().ident)
        barrier.wait(10)
        leave.wait(10)

    futures = [daemons.submit(work) for _ in range(4)]
    leave.set()
    await asyncio.gather(*futures)
    assert len(names) == 2
    daemons.end()


async def test_what_follows_what_is_done_reuses_its_thread():
    daemons = Daemons("t")
    names = {await daemons.submit(threading.get_ident) for _ in range(5)}
    assert len(names) == 1
    daemons.end()


class Telltale:
    """Notes on which thread it dies."""

    died: list

    def __init__(self):
        self.loop = self  # a circle: only the collector ends it, unless its frame is emptied first
        self.loop = None

    def __del__(self):
        Telltale.died.append(threading.current_thread().name)


async def test_what_failed_work_had_in_hand_dies_on_its_own_thread():
    Telltale.died = []

    def work():
        held = Telltale()
        try:
            {}[1]
        except KeyError:
            raise ValueError(held is None) from None

    daemons = Daemons("own")
    with pytest.raises(ValueError, match="False") as caught:
        await daemons.submit(work)
    assert Telltale.died == ["own"]
    del caught
    gc.collect()
    daemons.end()


async def test_what_is_done_after_the_end_was_submitted_before_it():
    daemons = Daemons("t", 1)
    last = daemons.submit(lambda: 7)
    daemons.end()
    assert await last == 7


def test_a_stuck_thread_does_not_keep_the_program():
    program = (
        "import asyncio, threading\n"
        "from minicloud.daemons import Daemons\n"
        "async def main():\n"
        "    stuck = Daemons('t').submit(threading.Event().wait)\n"
        "    try: await asyncio.wait_for(stuck, 0.01)\n"
        "    except TimeoutError: print('gone on')\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "gone on\n", "")


async def test_work_that_is_abandoned_harms_nobody():
    daemons = Daemons("t", 1)
    go = threading.Event()
    first = daemons.submit(lambda: go.wait(10))
    first.cancel()
    go.set()
    assert await daemons.submit(time.monotonic)
    daemons.end()
