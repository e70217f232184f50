import asyncio

import pytest

from nbdserve.errors import NoSpaceError
from nbdserve.overlay.groupcommit import GroupCommit


class Disk:
    """Counts commits, each of which waits for a word."""

    def __init__(self):
        self.written = 0
        self.durable = 0
        self.commits = 0
        self.begun = asyncio.Semaphore(0)
        self.go = asyncio.Semaphore(0)
        self.failure = None

    async def commit(self):
        self.commits += 1
        covered = self.written
        self.begun.release()
        await self.go.acquire()
        if self.failure is not None:
            raise self.failure
        self.durable = covered

    async def write_durably(self, commits):
        self.written += 1
        mine = self.written
        await commits()
        assert self.durable >= mine


async def test_one_caller_is_one_commit():
    disk = Disk()
    disk.go.release()
    await disk.write_durably(GroupCommit(disk.commit))
    assert disk.commits == 1


async def test_those_who_come_while_one_runs_share_the_next():
    disk = Disk()
    commits = GroupCommit(disk.commit)
    first = asyncio.ensure_future(disk.write_durably(commits))
    await disk.begun.acquire()
    others = [asyncio.ensure_future(disk.write_durably(commits)) for _ in range(100)]
    await asyncio.wait({first}, timeout=0)
    disk.go.release()
    await first
    await disk.begun.acquire()
    assert not any(other.done() for other in others)
    disk.go.release()
    await asyncio.gather(*others)
    assert disk.commits == 2


async def test_a_failure_is_raised_in_each_caller_it_concerns_and_the_next_may_succeed():
    disk = Disk()
    disk.failure = NoSpaceError("full")
    commits = GroupCommit(disk.commit)
    callers = [asyncio.ensure_future(commits()) for _ in range(3)]
    disk.go.release()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert [str(result) for result in results] == ["full"] * 3
    disk.failure = None
    disk.go.release()
    await commits()


async def test_a_cancelled_caller_does_not_stop_the_commit_of_the_others():
    disk = Disk()
    commits = GroupCommit(disk.commit)
    one, two = (asyncio.ensure_future(disk.write_durably(commits)) for _ in range(2))
    await disk.begun.acquire()
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    disk.go.release()
    await two
    assert disk.commits == 1


async def test_a_failure_nobody_waits_for_is_no_unhandled_exception():
    disk = Disk()
    disk.failure = NoSpaceError("full")
    commits = GroupCommit(disk.commit)
    caller = asyncio.ensure_future(commits())
    await disk.begun.acquire()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    disk.go.release()
    await commits.close()


async def test_close_waits_for_the_commit_under_way():
    disk = Disk()
    commits = GroupCommit(disk.commit)
    caller = asyncio.ensure_future(commits())
    await disk.begun.acquire()
    closing = asyncio.ensure_future(commits.close())
    await asyncio.wait({closing}, timeout=0)
    assert not closing.done()
    disk.go.release()
    await closing
    await caller


async def test_those_who_are_told_by_a_call_share_commits_with_those_who_wait():
    disk = Disk()
    commits = GroupCommit(disk.commit)
    told = []
    waiting = asyncio.ensure_future(commits())
    for number in range(50):
        commits.add(lambda error, number=number: told.append((number, error)))
    await disk.begun.acquire()
    assert not told
    disk.failure = NoSpaceError("full")
    disk.go.release()
    with pytest.raises(NoSpaceError):
        await waiting
    assert told == [(number, disk.failure) for number in range(50)]
    assert disk.commits == 1


async def test_when_the_loop_ends_nobody_is_told_of_success():
    disk = Disk()
    commits = GroupCommit(disk.commit)
    told = []
    commits.add(told.append)
    await disk.begun.acquire()
    (task,) = asyncio.all_tasks() - {asyncio.current_task()}
    task.cancel()
    await asyncio.wait({task})
    assert [str(error) for error in told] == ["the server ends before it was made durable"]
