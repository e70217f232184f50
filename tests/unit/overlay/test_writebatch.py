"""Writes that were begun together: one hop, one commit, an outcome for each."""

import asyncio
import threading

from nbdserve.overlay.groupcommit import GroupCommit
from nbdserve.overlay.writebatch import WriteBatch


class File:
    def __init__(self):
        self.written = []
        self.threads = []
        self.commits = []
        self.broken = {}

    def write(self, offset, data):
        self.threads.append(threading.current_thread())
        if offset in self.broken:
            raise self.broken[offset]
        self.written.append((offset, bytes(data)))

    async def commit(self):
        self.commits.append(len(self.written))
        await asyncio.sleep(0)
        if "commit" in self.broken:
            raise self.broken["commit"]


def add(batch, offset, data, *, fua=False):
    """Begin a write; gives a future of what its `done` is told."""
    outcome = asyncio.get_running_loop().create_future()
    batch.add(offset, memoryview(data), fua=fua, done=outcome.set_result)
    return outcome


async def test_what_begins_in_one_turn_shares_a_thread_and_a_commit():
    file = File()
    batch = WriteBatch(file.write, GroupCommit(file.commit).add)
    outcomes = [add(batch, n, b"%d" % n, fua=n % 2 == 0) for n in range(50)]
    assert await asyncio.gather(*outcomes) == [None] * 50
    assert file.written == [(n, b"%d" % n) for n in range(50)]
    assert len(set(file.threads)) == 1
    assert threading.current_thread() not in file.threads
    assert file.commits == [50]


async def test_each_is_told_its_own_outcome():
    file = File()
    file.broken[1] = OSError("one")
    batch = WriteBatch(file.write, GroupCommit(file.commit).add)
    outcomes = [add(batch, n, b"x", fua=True) for n in range(3)]
    assert await asyncio.gather(*outcomes) == [None, file.broken[1], None]


async def test_a_failed_commit_is_told_to_those_who_wanted_one():
    file = File()
    file.broken["commit"] = OSError("lost")
    batch = WriteBatch(file.write, GroupCommit(file.commit).add)
    outcomes = [add(batch, n, b"x", fua=n == 1) for n in range(3)]
    assert await asyncio.gather(*outcomes) == [None, file.broken["commit"], None]


async def test_large_ones_are_spread_over_jobs_of_bounded_size():
    file = File()
    together, most, lock = 0, 0, threading.Lock()

    def write(offset, data):
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        file.write(offset, data[:1])
        with lock:
            together -= 1

    batch = WriteBatch(write, None)
    outcomes = [add(batch, n, bytes(1 << 20)) for n in range(20)]
    assert await asyncio.gather(*outcomes) == [None] * 20
    assert most <= 2
    assert len(file.threads) == 20


async def test_closing_waits_for_what_was_begun():
    file = File()
    commits = GroupCommit(file.commit)
    batch = WriteBatch(file.write, commits.add)
    outcomes = [add(batch, n, bytes(1 << 19), fua=True) for n in range(9)]
    await batch.close()
    assert len(file.written) == 9
    await commits.close()
    assert all(outcome.done() for outcome in outcomes)
    assert len(file.written) == 9
    await batch.close()
