"""The readahead layer: who reads in order finds it there, who does not costs nothing."""

import asyncio
import itertools
import random
import struct

import pytest

from nbdserve.device import Capability, DeviceInfo
from nbdserve.errors import DeviceError, SourceUnavailableError
from nbdserve.layers.readahead import ReadaheadLayer, ReadaheadParams
from nbdserve.sources.memory import MemoryParams, MemorySource
from nbdserve.testing.faults import FaultyDevice, RecordingDevice

K, M = 1 << 10, 1 << 20
UNIT = 256 * K
SIZE = 8 * M + 5000
WORDS = struct.pack(f">{SIZE // 8}Q", *range(8, SIZE + 8, 8))


class Far(RecordingDevice):
    """A recorder that never answers at once and takes no hint, as a web server."""

    @property
    def info(self):
        beneath = self.inner.info
        return DeviceInfo(beneath.size, beneath.block_size, beneath.can & ~Capability.CACHE)

    def read_into_nowait(self, offset, view):
        return False


class Chain:
    """A readahead layer over a memory disk whose calls are recorded and can be held or failed."""

    def __init__(self, **params):
        self.disk = MemorySource(MemoryParams(size=SIZE))
        self.record = Far(self.disk, None)
        self.faults = FaultyDevice(self.record, None)
        self.layer = ReadaheadLayer(self.faults, ReadaheadParams(**params))

    async def open(self):
        await self.disk.write(0, memoryview(WORDS), fua=False)
        await self.layer.open(read_only=False)
        return self

    @property
    def reads(self):
        return self.record.made("read")

    async def read(self, offset, length):
        data = await self.layer.read(offset, length)
        assert data == WORDS[offset : offset + length]

    async def read_in_order(self, begin, end, step):
        for at in range(begin, end, step):
            await self.read(at, min(step, end - at))
            await turns()


@pytest.fixture
async def make():
    opened = []

    async def build(**params):
        made = await Chain(**params).open()
        opened.append(made)
        return made

    yield build
    for made in opened:
        made.faults.heal()
        await made.layer.close()


async def turns():
    for _ in range(20):
        await asyncio.sleep(0)


def now(device, offset, length):
    """Read without waiting: the bytes, or None."""
    view = memoryview(bytearray(length))
    return bytes(view) if device.read_into_nowait(offset, view) else None


def asked_beyond(made, end):
    return [(offset, length) for offset, length in made.reads if offset >= end]


async def test_what_follows_is_read_before_it_is_asked_for(make):
    made = await make()
    await made.read_in_order(0, 2 * 64 * K, 64 * K)
    assert asked_beyond(made, 128 * K) == []
    await made.read(128 * K, 64 * K)
    await turns()
    assert asked_beyond(made, 192 * K) == [(UNIT, UNIT)]
    await made.read_in_order(192 * K, 512 * K, 64 * K)
    assert asked_beyond(made, 512 * K) == [(512 * K, UNIT), (768 * K, UNIT)]
    assert now(made.layer, 512 * K, 64 * K) == WORDS[512 * K : 576 * K]


@pytest.mark.parametrize("step", [64 * K, 100_000, 1 * M, 5 * K])
async def test_of_a_whole_copy_each_byte_is_read_once_and_most_before_it_is_asked_for(make, step):
    made = await make()
    await made.read_in_order(0, SIZE, step)
    reads = sorted(made.reads)
    assert all(
        first + length == second for (first, length), (second, _) in itertools.pairwise(reads)
    )
    assert (reads[0][0], sum(reads[-1])) == (0, SIZE)
    waits = -(-SIZE // step)
    assert len(reads) < max(waits / 2, 25)


async def test_most_reads_of_a_copy_are_answered_without_waiting(make):
    made = await make()
    answered = 0
    for at in range(0, 8 * M, 16 * K):
        if now(made.layer, at, 16 * K) is None:
            await made.read(at, 16 * K)
        else:
            answered += 1
        await turns()
    assert answered >= 0.9 * (8 * M // (16 * K))


async def test_four_readers_at_once_are_each_read_ahead_of(make):
    made = await make()
    part = 2 * M
    async with asyncio.TaskGroup() as group:
        for at in range(0, 4 * part, part):
            group.create_task(made.read_in_order(at, at + part, 64 * K))
    # where one began to read, the one before it may read ahead before that is known
    assert sum(length for _, length in made.reads) <= 1.1 * 4 * part
    assert len(made.reads) < 4 * 12


async def test_a_random_reader_costs_not_one_read_more(make):
    made = await make()
    source = random.Random(3)
    requests = [(source.randrange(SIZE // 4096) * 4096, 4096) for _ in range(300)]
    for request in requests:
        await made.read(*request)
    await turns()
    assert made.reads == requests


async def test_a_reader_of_what_is_on_its_way_waits_for_that_read(make):
    made = await make()
    await made.read_in_order(0, 128 * K, 64 * K)
    gate = made.faults.hold("read", offset=UNIT)
    await made.read(128 * K, 64 * K)
    await gate.waiting(1)
    await made.read(192 * K, 64 * K)
    waiting = [asyncio.ensure_future(made.read(UNIT + at, 64 * K)) for at in range(0, UNIT, 64 * K)]
    await turns()
    assert not any(one.done() for one in waiting)
    waiting[0].cancel()
    await turns()
    gate.release()
    await asyncio.gather(*waiting[1:])
    assert made.reads.count((UNIT, UNIT)) == 1
    assert [read for read in made.reads if read[0] == UNIT] == [(UNIT, UNIT)]


async def test_a_read_ahead_that_fails_is_nobodys_error(make):
    made = await make()
    made.faults.fail("read", error=SourceUnavailableError("gone"), offset=UNIT + 1)
    await made.read_in_order(0, 1 * M, 64 * K)
    made.faults.fail("read", error=SourceUnavailableError("gone"), offset=3 * M, times=None)
    await made.read_in_order(1 * M, 3 * M - 64 * K, 64 * K)
    await made.read(3 * M - 64 * K, 64 * K)
    with pytest.raises(DeviceError, match="gone"):
        await made.layer.read(3 * M, 64 * K)
    made.faults.heal()
    await made.read(3 * M, 64 * K)


async def test_a_reader_that_waits_when_it_fails_asks_again(make):
    made = await make()
    await made.read_in_order(0, 128 * K, 64 * K)
    gate = made.faults.hold("read", offset=UNIT)
    made.faults.fail("read", error=SourceUnavailableError("gone"), offset=UNIT)
    await made.read(128 * K, 64 * K)
    await gate.waiting(1)
    reading = asyncio.ensure_future(made.read(UNIT + 4 * K, 4 * K))
    await turns()
    gate.release()
    await reading
    assert (UNIT + 4 * K, 4 * K) in made.reads


async def test_memory_is_bounded_and_what_was_had_goes_first(make):
    made = await make(size=1 * M, window=1 * M)
    await made.read_in_order(0, SIZE, 32 * K)
    assert made.layer._units.weight <= 1 * M
    assert made.layer.status()["held"] <= made.layer.status()["limit"]
    assert sum(length for _, length in made.reads) == SIZE
    assert now(made.layer, 0, 1) is None
    assert now(made.layer, SIZE - 1, 1) is not None


async def test_readers_that_went_away_do_not_keep_the_memory_for_ever(make):
    made = await make(size=1 * M)
    for at in range(0, 4 * M, 1 * M):
        await made.read_in_order(at, at + 512 * K, 32 * K)
    assert made.layer._units.weight > 700 * K
    made.record.calls.clear()
    for _ in range(8):  # three times the memory, by another reader
        await made.read_in_order(6 * M, 6 * M + 512 * K, 32 * K)
    made.record.calls.clear()
    await made.read_in_order(4 * M, 5 * M, 32 * K)
    assert len(made.reads) < 16


async def test_without_memory_reads_go_through(make):
    made = await make(size=0)
    await made.read_in_order(0, SIZE, 1 * M)
    assert len(made.reads) == 9


async def test_a_write_drops_what_was_read_ahead_of_it(make):
    made = await make()
    await made.read_in_order(0, 256 * K, 64 * K)
    assert now(made.layer, UNIT, 8) == WORDS[UNIT : UNIT + 8]
    await made.layer.write(UNIT + 100, memoryview(b"new"), fua=False)
    assert await made.layer.read(UNIT + 100, 3) == b"new"
    await made.layer.write_zeroes(UNIT + 100, 3, fua=False, may_trim=False, fast=False)
    assert await made.layer.read(UNIT + 100, 3) == bytes(3)
    await made.layer.trim(UNIT, UNIT, fua=False)
    assert await made.layer.read(UNIT, UNIT) == bytes(UNIT)


async def test_a_read_ahead_that_a_write_overtook_is_not_kept(make):
    made = await make()
    await made.read_in_order(0, 128 * K, 64 * K)
    gate = made.faults.hold("read", offset=UNIT)
    await made.read(128 * K, 64 * K)
    await gate.waiting(1)
    await made.layer.write(UNIT, memoryview(b"new"), fua=False)
    reading = asyncio.ensure_future(made.layer.read(UNIT, 3))
    await turns()
    gate.release()
    assert await reading == b"new"
    await turns()
    assert now(made.layer, UNIT, 3) in {None, b"new"}


async def test_a_cancelled_write_drops_it_when_it_is_really_done(make):
    made = await make()
    await made.read_in_order(0, 256 * K, 64 * K)
    gate = made.faults.hold("write")
    writing = asyncio.ensure_future(made.layer.write(UNIT, memoryview(b"new"), fua=False))
    await gate.waiting(1)
    writing.cancel()
    await asyncio.wait((writing,))
    assert now(made.layer, UNIT, 8) == WORDS[UNIT : UNIT + 8]
    gate.release()
    await turns()
    assert now(made.layer, UNIT, 3) is None
    assert await made.layer.read(UNIT, 3) == b"new"


async def test_a_hint_loads_what_it_names(make):
    made = await make()
    assert made.layer.info.can & Capability.CACHE
    await made.layer.cache(3 * M + 5, 100)
    assert made.reads == [(3 * M, UNIT)]
    assert now(made.layer, 3 * M, UNIT) == WORDS[3 * M : 3 * M + UNIT]
    await made.layer.cache(SIZE - 10, 10)
    assert now(made.layer, SIZE - 10, 10) == WORDS[-10:]
    await made.layer.cache(0, SIZE)
    assert sum(length for _, length in made.reads) <= SIZE


async def test_a_hint_goes_to_a_device_that_takes_it():
    record = RecordingDevice(MemorySource(MemoryParams(size=SIZE)), None)
    layer = ReadaheadLayer(record, ReadaheadParams())
    await layer.open(read_only=True)
    await layer.cache(0, 1 * M)
    assert record.made("cache") == [(0, 1 * M)]
    await layer.close()


async def test_nothing_is_read_ahead_of_a_device_that_answers_at_once():
    record = RecordingDevice(MemorySource(MemoryParams(size=SIZE)), None)
    layer = ReadaheadLayer(record, ReadaheadParams())
    await layer.open(read_only=True)
    for at in range(0, 2 * M, 64 * K):
        assert await layer.read(at, 64 * K) == bytes(64 * K)
    await turns()
    assert record.made("read") == [(at, 64 * K) for at in range(0, 2 * M, 64 * K)]
    await layer.close()


async def test_closing_ends_what_is_on_its_way(make):
    made = await make()
    await made.read_in_order(0, 128 * K, 64 * K)
    gate = made.faults.hold("read", offset=UNIT)
    await made.read(128 * K, 64 * K)
    await gate.waiting(1)
    await made.layer.close()
    assert gate.held == 0
