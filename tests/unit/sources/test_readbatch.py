"""Cold reads of a turn share a job: all are begun, each is answered with its own outcome."""

import asyncio
import threading

import pytest

from nbdserve.sources.readbatch import ReadBatch, runs


@pytest.mark.parametrize(
    ("ranges", "joined"),
    [
        ([], []),
        ([(0, 4)], [(0, 4)]),
        ([(8, 4), (0, 4)], [(0, 4), (8, 4)]),
        ([(4, 4), (0, 4), (8, 1)], [(0, 9)]),
        ([(0, 10), (2, 3), (9, 4)], [(0, 13)]),
        ([(0, 0), (5, 0)], []),
    ],
)
def test_ranges_that_touch_are_joined(ranges, joined):
    assert list(runs(ranges)) == joined


class File:
    def __init__(self):
        self.prefetched = []
        self.threads = set()
        self.broken = {}
        self.gate = threading.Event()
        self.gate.set()
        self.hint_fails = False

    def read(self, offset, view):
        self.threads.add(threading.current_thread())
        assert self.gate.wait(30)
        if offset in self.broken:
            raise self.broken[offset]
        view[:] = bytes([offset % 251]) * len(view)

    def prefetch(self, offset, length):
        self.prefetched.append((offset, length))
        if self.hint_fails:
            raise OSError("no hints here")


def reads(batch, offsets, length=8):
    views = [memoryview(bytearray(length)) for _ in offsets]
    outcomes = [asyncio.get_running_loop().create_future() for _ in offsets]
    for offset, view, outcome in zip(offsets, views, outcomes, strict=True):
        batch.add(offset, view, outcome.set_result)
    return views, outcomes


@pytest.mark.parametrize("hint_fails", [False, True])
async def test_reads_of_one_turn_are_begun_together(hint_fails):
    file = File()
    file.hint_fails = hint_fails
    batch = ReadBatch(file.read, file.prefetch)
    offsets = [0, 8, 100, 16]
    views, tasks = reads(batch, offsets)
    await asyncio.gather(*tasks)
    assert [bytes(view) for view in views] == [bytes([offset]) * 8 for offset in offsets]
    assert file.prefetched == [(0, 24), (100, 8)]
    assert len(file.threads) == 1


async def test_a_single_read_is_left_to_the_kernels_readahead():
    file = File()
    views, tasks = reads(ReadBatch(file.read, file.prefetch), [5])
    await tasks[0]
    assert bytes(views[0]) == b"\x05" * 8
    assert file.prefetched == []


async def test_each_is_told_its_own_outcome():
    file = File()
    file.broken[8] = OSError("bad sector")
    _, tasks = reads(ReadBatch(file.read, file.prefetch), [0, 8, 16])
    assert await asyncio.gather(*tasks) == [None, file.broken[8], None]


async def test_many_and_large_ones_are_spread_over_jobs():
    file = File()
    batch = ReadBatch(file.read, file.prefetch)
    views, tasks = reads(batch, list(range(0, 5000, 8)))
    await asyncio.gather(*tasks)
    assert all(bytes(view) == bytes([n * 8 % 251]) * 8 for n, view in enumerate(views))
    file.prefetched.clear()
    _, tasks = reads(batch, [0, 3 << 20], 3 << 20)
    await asyncio.gather(*tasks)
    assert file.prefetched == []  # each is a job of its own
