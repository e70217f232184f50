"""The cache layer: what is read once stays, what is written is never served stale."""

import asyncio
import itertools
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbdserve.device import BlockSize, Capability, DeviceInfo
from nbdserve.errors import ConfigError, DeviceError, SourceUnavailableError
from nbdserve.layers.cachememory import MemoryCache
from nbdserve.layers.cacheparams import CacheParams
from nbdserve.layers.cacheruns import runs
from nbdserve.params import params_from
from nbdserve.sources.memory import MemoryParams, MemorySource
from nbdserve.testing.faults import FaultyDevice, RecordingDevice

BLOCK = 4096
SIZE = 40 * BLOCK - 1000  # the last block is a part of one
WORDS = struct.pack(f">{SIZE // 8}Q", *range(8, SIZE + 8, 8))


class Waiting(RecordingDevice):
    """A recorder that never answers at once, as a far source."""

    def read_into_nowait(self, offset, view):
        return False


class Chain:
    """A cache over a memory disk whose calls are recorded and can be held or failed."""

    def __init__(self, **params):
        self.disk = MemorySource(MemoryParams(size=SIZE))
        self.record = Waiting(self.disk, None)
        self.faults = FaultyDevice(self.record, None)
        self.layer = MemoryCache(self.faults, CacheParams(**{"block": BLOCK, **params}))

    async def open(self):
        await self.disk.write(0, memoryview(WORDS), fua=False)
        await self.layer.open(read_only=False)
        return self

    @property
    def reads(self):
        return self.record.made("read")


@pytest.fixture
async def make():
    opened = []

    async def build(**params):
        made = await Chain(**{"size": 1 << 20, **params}).open()
        opened.append(made)
        return made

    yield build
    for made in opened:
        await made.layer.close()
        assert made.layer._blocks._reserved == 0


async def turns():
    for _ in range(20):
        await asyncio.sleep(0)


def now(device, offset, length):
    """Read without waiting: the bytes, or None."""
    view = memoryview(bytearray(length))
    return bytes(view) if device.read_into_nowait(offset, view) else None


async def test_a_block_is_read_once_and_then_answered_without_waiting(make):
    made = await make()
    assert now(made.layer, 5000, 100) is None
    assert await made.layer.read(5000, 100) == WORDS[5000:5100]
    assert now(made.layer, 4096, 4096) == WORDS[4096:8192]
    assert made.reads == [(4096, 4096)]


async def test_missing_neighbours_are_one_read_and_what_is_there_is_not_read_again(make):
    made = await make()
    await made.layer.read(3 * BLOCK, 10)
    assert await made.layer.read(100, 8 * BLOCK) == WORDS[100 : 100 + 8 * BLOCK]
    assert made.reads == [(3 * BLOCK, BLOCK), (0, 3 * BLOCK), (4 * BLOCK, 5 * BLOCK)]


async def test_the_last_block_is_a_part_of_one(make):
    made = await make()
    assert await made.layer.read(SIZE - 10, 10) == WORDS[-10:]
    assert await made.layer.read(SIZE - 2 * BLOCK, 2 * BLOCK) == WORDS[-2 * BLOCK :]
    last = SIZE // BLOCK * BLOCK
    assert made.reads == [(last, SIZE - last), (last - 2 * BLOCK, 2 * BLOCK)]


async def test_memory_stays_within_its_size(make):
    made = await make(size=10 * (BLOCK + 256))
    assert await made.layer.read(0, SIZE) == WORDS
    assert made.layer._blocks.weight <= 10 * (BLOCK + 256)
    assert len(made.layer._blocks) == 10
    assert now(made.layer, 0, 1) is None
    assert now(made.layer, SIZE - 1, 1) is not None


async def test_a_size_below_one_block_still_reads(make):
    made = await make(size=0)
    assert await made.layer.read(0, SIZE) == WORDS


async def test_many_readers_of_a_cold_range_cost_one_read(make):
    made = await make()
    gate = made.faults.hold("read")
    readers = [asyncio.create_task(made.layer.read(n, 2 * BLOCK)) for n in range(50)]
    await gate.waiting()
    await turns()
    gate.release()
    for n, reader in enumerate(readers):
        assert await reader == WORDS[n : n + 2 * BLOCK]
    # the first reader's range ends with block 1; those behind it reach into block 2
    assert made.reads == [(0, 2 * BLOCK), (2 * BLOCK, BLOCK)]


async def test_a_cancelled_reader_does_not_end_the_read_of_another(make):
    made = await make()
    gate = made.faults.hold("read")
    first, second = (asyncio.create_task(made.layer.read(n, BLOCK)) for n in (0, 0))
    await gate.waiting()
    await turns()
    first.cancel()
    await turns()
    gate.release()
    assert await second == WORDS[:BLOCK]
    assert made.reads == [(0, BLOCK)]


async def test_a_failure_is_for_its_readers_and_not_remembered(make):
    made = await make()
    made.faults.fail("read", error=SourceUnavailableError("away"), offset=BLOCK)
    with pytest.raises(SourceUnavailableError, match="away"):
        await made.layer.read(0, 3 * BLOCK)
    assert await made.layer.read(0, 3 * BLOCK) == WORDS[: 3 * BLOCK]


async def test_a_write_is_read_back(make):
    made = await make()
    await made.layer.read(0, 3 * BLOCK)
    await made.layer.write(BLOCK - 5, memoryview(b"x" * 10), fua=False)
    expected = WORDS[: BLOCK - 5] + b"x" * 10 + WORDS[BLOCK + 5 : 3 * BLOCK]
    assert await made.layer.read(0, 3 * BLOCK) == expected
    assert made.reads[1:] == [(0, 2 * BLOCK)], "the block it did not touch stays"


async def test_zeroes_and_trims_are_read_back(make):
    made = await make()
    await made.layer.read(0, SIZE)
    await made.layer.write_zeroes(100, 2 * BLOCK, fua=False, may_trim=True, fast=False)
    await made.layer.trim(SIZE - BLOCK, BLOCK, fua=False)
    image = bytearray(WORDS)
    image[100 : 100 + 2 * BLOCK] = bytes(2 * BLOCK)
    image[-BLOCK:] = bytes(BLOCK)
    assert await made.layer.read(0, SIZE) == image


async def test_fua_and_flush_and_extents_go_through(make):
    made = await make()
    await made.layer.write(0, memoryview(b"x"), fua=True)
    await made.layer.flush()
    await made.layer.extents(0, SIZE)
    await made.layer.trim(0, BLOCK, fua=True)
    operations = [call.operation for call in made.record.calls]
    assert operations == ["write", "flush", "extents", "trim"]


async def test_a_read_begun_before_a_write_is_not_kept(make):
    made = await make()
    gate = made.faults.hold("read")
    early = asyncio.create_task(made.layer.read(0, BLOCK))
    await gate.waiting()
    await made.layer.write(0, memoryview(b"new!"), fua=False)
    late = asyncio.create_task(made.layer.read(0, 4))
    await gate.waiting(2)
    gate.release()
    await early
    assert await late == b"new!"
    assert now(made.layer, 0, 4) == b"new!"


async def test_what_is_read_while_a_write_is_under_way_is_forgotten_when_it_ends(make):
    made = await make()
    gate = made.faults.hold("write")
    write = asyncio.create_task(made.layer.write(0, memoryview(b"new!"), fua=False))
    await gate.waiting()
    assert await made.layer.read(0, 4) == WORDS[:4]
    gate.release()
    await write
    assert now(made.layer, 0, 4) is None
    assert await made.layer.read(0, 4) == b"new!"


async def test_a_cancelled_write_is_not_forgotten_when_it_lands_later(make):
    made = await make()
    gate = made.faults.hold("write")
    write = asyncio.create_task(made.layer.write(0, memoryview(b"new!"), fua=False))
    await gate.waiting()
    write.cancel()
    await asyncio.wait((write,))
    assert await made.layer.read(0, 4) == WORDS[:4]
    gate.release()
    await turns()
    assert await made.layer.read(0, 4) == b"new!"


async def test_closing_waits_for_a_write_that_is_under_way(make):
    made = await Chain(size=1 << 20).open()
    gate = made.faults.hold("write")
    write = asyncio.create_task(made.layer.write(0, memoryview(b"new!"), fua=False))
    await gate.waiting()
    write.cancel()
    closing = asyncio.create_task(made.layer.close())
    await turns()
    assert not closing.done()
    gate.release()
    await closing
    assert await made.disk.read(0, 4) == b"new!"


async def test_a_failed_write_leaves_nothing_stale(make):
    made = await make()
    await made.layer.read(0, BLOCK)
    made.faults.fail("write", error=DeviceError("disk on fire"))
    with pytest.raises(DeviceError, match="on fire"):
        await made.layer.write(0, memoryview(b"new!"), fua=False)
    assert now(made.layer, 0, 4) is None


async def test_cache_reads_a_range_ahead_and_no_more_than_fits(make):
    made = await make()
    await made.layer.cache(100, 3 * BLOCK)
    assert now(made.layer, 0, 4 * BLOCK) == WORDS[: 4 * BLOCK]
    small = await make(size=8 * BLOCK)
    await small.layer.cache(0, SIZE)
    assert sum(length for _, length in small.reads) <= 8 * BLOCK


async def test_it_tells_what_is_beneath_and_that_it_caches(make):
    made = await make()
    assert made.layer.info.size == SIZE
    assert made.layer.info.can == made.disk.info.can | Capability.CACHE
    assert made.layer.info.block_size.preferred == 4096


async def test_a_block_smaller_than_the_sectors_beneath_is_refused():
    class Sectors(MemorySource):
        @property
        def info(self):
            return DeviceInfo(1 << 20, BlockSize(4096, 4096, 1 << 20))

    layer = MemoryCache(Sectors(MemoryParams(size=1 << 20)), CacheParams(size=1 << 20, block=512))
    with pytest.raises(ConfigError, match="no multiple of 4096"):
        await layer.open(read_only=True)


@pytest.mark.parametrize("block", ["1000", "256", "64M", "3K", "0"])
def test_a_block_that_is_no_power_of_two_in_range_is_refused(block):
    with pytest.raises(ConfigError, match="power of two"):
        params_from(CacheParams, [("size", "1M"), ("block", block)], element="layer cache")


@given(st.sets(st.integers(0, 60)), st.integers(1, 5))
def test_runs_hold_every_number_once_and_none_is_too_long(numbers, most):
    found = list(runs(sorted(numbers), most))
    assert [number for run in found for number in run] == sorted(numbers)
    assert all(1 <= len(run) <= most for run in found)
    for run, following in itertools.pairwise(found):
        assert run.stop < following.start or len(run) == most


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
async def test_any_reads_and_writes_are_as_on_the_disk_itself(data):
    made = await Chain(size=data.draw(st.sampled_from([0, 5 * BLOCK, 1 << 20]))).open()
    image = bytearray(WORDS)
    for _ in range(data.draw(st.integers(0, 12))):
        offset = data.draw(st.integers(0, SIZE))
        length = data.draw(st.integers(0, min(3 * BLOCK, SIZE - offset)))
        match data.draw(st.sampled_from(["read", "write", "zero", "trim"])):
            case "read":
                ahead = now(made.layer, offset, length)
                assert ahead is None or ahead == image[offset : offset + length]
                assert await made.layer.read(offset, length) == image[offset : offset + length]
            case "write":
                new = bytes([data.draw(st.integers(0, 255))]) * length
                image[offset : offset + length] = new
                await made.layer.write(offset, memoryview(new), fua=False)
            case "zero":
                image[offset : offset + length] = bytes(length)
                await made.layer.write_zeroes(offset, length, fua=False, may_trim=False, fast=False)
            case "trim":
                image[offset : offset + length] = bytes(length)
                await made.layer.trim(offset, length, fua=False)
    await made.layer.close()
