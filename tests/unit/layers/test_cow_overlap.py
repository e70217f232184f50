import asyncio
import itertools
import random
import threading

import pytest

from cow_chain import CLUSTER, SIZE, contents, faulty, opened, pattern, write, zero
from nbdserve.datafile import DataFile


async def test_two_writers_of_one_cluster_lose_nothing():
    inner = faulty()
    async with opened(inner) as layer:
        gate = inner.hold("read")
        writes = [
            asyncio.ensure_future(write(layer, 100 * number, bytes((65 + number,)) * 100))
            for number in range(20)
        ]
        await gate.waiting(1)
        await asyncio.wait(writes, timeout=0)
        assert gate.held == 1  # the cluster is copied once
        gate.release()
        await asyncio.gather(*writes)
        expected = await contents(pattern())
        expected[:2000] = b"".join(bytes((65 + number,)) * 100 for number in range(20))
        assert await contents(layer) == expected


async def test_a_whole_write_waits_for_a_partial_one_that_came_first():
    inner = faulty()
    async with opened(inner) as layer:
        gate = inner.hold("read")
        partial = asyncio.ensure_future(write(layer, 10, b"new"))
        await gate.waiting(1)
        whole = asyncio.ensure_future(write(layer, 0, b"w" * CLUSTER))
        await asyncio.wait({whole}, timeout=0)
        assert not whole.done()
        gate.release()
        await asyncio.gather(partial, whole)
        assert await layer.read(0, CLUSTER) == b"w" * CLUSTER


async def test_zeroing_waits_for_a_write_that_came_first():
    inner = faulty()
    async with opened(inner) as layer:
        gate = inner.hold("read")
        partial = asyncio.ensure_future(write(layer, 10, b"new"))
        await gate.waiting(1)
        zeroing = asyncio.ensure_future(zero(layer, 0, SIZE))
        gate.release()
        await asyncio.gather(partial, zeroing)
        assert await contents(layer) == bytes(SIZE)


async def test_writes_of_different_clusters_do_not_wait_for_each_other():
    inner = faulty()
    async with opened(inner) as layer:
        gate = inner.hold("read", offset=0)
        slow = asyncio.ensure_future(write(layer, 10, b"slow"))
        await gate.waiting(1)
        await write(layer, CLUSTER + 10, b"quick")
        assert not slow.done()
        gate.release()
        await slow


async def test_a_read_during_a_write_sees_the_old_bytes_until_the_new_ones_are_whole():
    inner = faulty()
    async with opened(inner) as layer:
        gate = inner.hold("read", offset=CLUSTER - 1)
        writing = asyncio.ensure_future(write(layer, 0, b"new"))
        await gate.waiting(1)
        assert await layer.read(0, 8) == bytes(8)
        gate.release()
        await writing
        assert await layer.read(0, 8) == b"new\0\0\0\0\0"
        assert await layer.read(CLUSTER - 8, 8) == (CLUSTER - 8).to_bytes(8, "big")


class HeldWrites:
    """Makes writes to the overlay file wait in their thread."""

    def __init__(self, monkeypatch):
        self.begun = asyncio.Event()
        self.let_go = threading.Event()
        loop, plain = asyncio.get_running_loop(), DataFile.write

        def held(file, offset, buffers):
            loop.call_soon_threadsafe(self.begun.set)
            self.let_go.wait()
            plain(file, offset, buffers)

        monkeypatch.setattr(DataFile, "write", held)


async def test_a_cancelled_write_never_lands_on_top_of_a_later_one(monkeypatch):
    held = HeldWrites(monkeypatch)
    async with opened(pattern()) as layer:
        early = asyncio.ensure_future(write(layer, 0, b"early".ljust(CLUSTER)))
        await held.begun.wait()
        early.cancel()
        late = asyncio.ensure_future(write(layer, 0, b"late".ljust(CLUSTER)))
        await asyncio.wait({early, late}, timeout=0)
        assert not late.done()
        held.let_go.set()
        with pytest.raises(asyncio.CancelledError):
            await early
        await late
        assert await layer.read(0, CLUSTER) == b"late".ljust(CLUSTER)


async def test_a_write_cancelled_while_it_reads_the_base_leaves_the_cluster_free():
    inner = faulty()
    async with opened(inner) as layer:
        gate = inner.hold("read")
        writing = asyncio.ensure_future(write(layer, 10, b"never"))
        await gate.waiting(1)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        gate.release()
        assert await contents(layer) == await contents(pattern())
        await write(layer, 10, b"later")
        assert await layer.read(10, 5) == b"later"


@pytest.mark.parametrize("seed", range(4))
async def test_random_requests_at_the_same_time_agree_with_a_byte_array(seed, tmp_path):
    rng = random.Random(seed)
    size = 40 * CLUSTER + 777
    model = await contents(pattern(size))
    params = {"path": tmp_path / "x.cow"} if seed % 2 else {"dir": tmp_path}
    async with opened(pattern(size), **params) as layer:
        for _ in range(60):
            await asyncio.gather(*(step(layer, model, rng) for step in disjoint(rng, size)))
            assert await contents(layer) == model


def disjoint(rng, size):
    """Make steps for ranges that share bytes with none of the others, but share clusters."""
    borders = sorted(rng.sample(range(size + 1), 12))
    parts = list(itertools.pairwise(borders))
    rng.shuffle(parts)
    for start, end in parts[:8]:
        yield step_on(rng.choice(["write", "write", "zero", "trim", "read"]), start, end - start)


def step_on(what, offset, length):
    async def step(layer, model, rng):
        fua = rng.random() < 0.1
        if what == "read":
            assert await layer.read(offset, length) == model[offset : offset + length]
        elif what == "write":
            data = rng.randbytes(length)
            await layer.write(offset, memoryview(data), fua=fua)
            model[offset : offset + length] = data
        elif what == "zero":
            may_trim = rng.random() < 0.5
            await layer.write_zeroes(offset, length, fua=fua, may_trim=may_trim, fast=False)
            model[offset : offset + length] = bytes(length)
        else:
            await layer.trim(offset, length, fua=fua)
            model[offset : offset + length] = await layer.read(offset, length)

    return step
