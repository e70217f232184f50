"""Group commit: everyone is covered by a sync that began after they asked."""

import asyncio

import pytest

from nbdserve.sources.commits import Commits
from nbdserve.testing.faults import Gate


class Disk:
    """A disk whose syncs wait at a gate."""

    def __init__(self):
        self.gate = Gate()
        self.syncs = 0
        self.failure = None

    async def sync(self):
        self.syncs += 1
        await self.gate.enter()
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def disk():
    return Disk()


@pytest.fixture
def commits(disk):
    return Commits(disk.sync)


async def test_those_who_come_during_a_sync_share_the_next(disk, commits):
    async with asyncio.TaskGroup() as group:
        group.create_task(commits.commit())
        await disk.gate.waiting()
        late = [group.create_task(commits.commit()) for _ in range(20)]
        await asyncio.sleep(0)
        disk.gate.release(1)
        await disk.gate.waiting()
        assert not any(task.done() for task in late), "the first sync began before they asked"
        disk.gate.release()
    assert disk.syncs == 2


async def test_one_after_the_other_each_has_its_own(disk, commits):
    disk.gate.release()
    for _ in range(3):
        await commits.commit()
    assert disk.syncs == 3


async def test_a_failed_sync_covers_nobody(disk, commits):
    disk.gate.release()
    disk.failure = OSError("scripted")
    outcomes = await asyncio.gather(*(commits.commit() for _ in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [OSError] * 3


async def test_cancelling_one_leaves_the_others(disk, commits):
    first = asyncio.ensure_future(commits.commit())
    await disk.gate.waiting()
    second = asyncio.ensure_future(commits.commit())
    await asyncio.sleep(0)
    first.cancel()
    disk.gate.release()
    await second
    assert disk.syncs == 2, "the sync that was given up counts for nobody"
