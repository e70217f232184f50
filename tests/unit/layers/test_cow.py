import os
import random

import pytest

from cow_chain import CLUSTER, SIZE, K, contents, faulty, opened, pattern, recording, write, zero
from nbdserve.datafile import DataFile
from nbdserve.device import BlockSize, Capability, FileRange
from nbdserve.errors import DeviceError, NotSupportedError
from nbdserve.extents import DATA, ZERO_HOLE, Extent
from nbdserve.layers.cow import CowLayer
from nbdserve.sources.memory import MemoryParams, MemorySource
from nbdserve.sources.pattern import PatternParams, PatternSource


async def test_it_writes_over_a_base_that_cannot_be_written():
    async with opened(pattern()) as layer:
        assert layer.info.size == SIZE
        assert layer.info.can & Capability.WRITES == Capability.WRITES
        assert layer.info.can & Capability.EXTENTS
        assert layer.info.block_size == BlockSize(1, 4096, 32 << 20)
    assert not CowLayer.writes_inner


async def test_the_preferred_block_is_a_cluster():
    async with opened(pattern(), cluster=None) as layer:
        assert layer.info.block_size.preferred == 64 * K


async def test_opened_read_only_it_is_the_base_and_makes_no_file(tmp_path):
    async with opened(pattern(), read_only=True, dir=tmp_path / "missing") as layer:
        assert not layer.info.can & Capability.WRITES
        assert await contents(layer) == await contents(pattern())


async def test_what_was_written_is_read_and_the_rest_is_the_base_unchanged():
    base = MemorySource(MemoryParams(size=SIZE))
    await write(base, 0, await contents(pattern()))
    expected = await contents(base)
    async with opened(base) as layer:
        await write(layer, 5000, b"new")
        expected[5000:5003] = b"new"
        assert await contents(layer) == expected
    assert await contents(base) == await contents(pattern())


@pytest.mark.parametrize(
    ("offset", "length", "reads"),
    [
        (CLUSTER, CLUSTER, []),
        (CLUSTER, 3 * CLUSTER, []),
        (CLUSTER, 100, [(CLUSTER + 100, CLUSTER - 100)]),
        (CLUSTER + 100, CLUSTER - 100, [(CLUSTER, 100)]),
        (CLUSTER + 100, 8, [(CLUSTER, CLUSTER)]),
        (CLUSTER + 100, CLUSTER, [(CLUSTER, 100), (2 * CLUSTER + 100, CLUSTER - 100)]),
        (CLUSTER + 100, 3 * CLUSTER, [(CLUSTER, 100), (4 * CLUSTER + 100, CLUSTER - 100)]),
    ],
)
async def test_a_write_reads_from_the_base_only_what_it_leaves_of_a_cluster(offset, length, reads):
    inner = recording()
    expected = await contents(inner)
    inner.calls.clear()
    async with opened(inner) as layer:
        data = random.Random(1).randbytes(length)
        await write(layer, offset, data)
        assert inner.made("read") == reads
        expected[offset : offset + length] = data
        assert await contents(layer) == expected


async def test_a_second_write_to_a_cluster_reads_nothing_from_the_base():
    inner = recording()
    async with opened(inner) as layer:
        await write(layer, 100, b"one")
        inner.calls.clear()
        await write(layer, 200, b"two")
        assert inner.calls == []
        assert await layer.read(100, 3) == b"one"


async def test_the_last_cluster_ends_where_the_device_does():
    inner = recording(CLUSTER + 1000)
    expected = await contents(inner)
    inner.calls.clear()
    async with opened(inner) as layer:
        await write(layer, CLUSTER, bytes(1000))
        assert inner.calls == []
        await write(layer, 10, b"head")
        await zero(layer, CLUSTER + 999, 1)
        expected[10:14] = b"head"
        expected[CLUSTER:] = bytes(1000)
        assert await contents(layer) == expected


async def test_a_read_over_all_states_puts_each_byte_in_its_place():
    inner = recording()
    expected = await contents(inner)
    async with opened(inner) as layer:
        for number, state in enumerate("bdzbbddzzbdbzd"):
            offset = number * CLUSTER
            if state == "d":
                data = random.Random(number).randbytes(CLUSTER)
                await write(layer, offset, data)
                expected[offset : offset + CLUSTER] = data
            elif state == "z":
                await zero(layer, offset, CLUSTER)
                expected[offset : offset + CLUSTER] = bytes(CLUSTER)
        for offset, length in [(0, SIZE), (100, SIZE - 200), (CLUSTER - 1, 2), (3 * CLUSTER, 1)]:
            view = memoryview(bytearray(length))
            assert layer.read_into_nowait(offset, view)
            assert view == expected[offset : offset + length]
            view = memoryview(bytearray(length))
            await layer.read_into(offset, view)
            assert view == expected[offset : offset + length]


async def test_runs_of_the_base_close_together_are_one_read():
    inner = recording()
    async with opened(inner) as layer:
        await write(layer, 2 * CLUSTER, bytes(CLUSTER))
        inner.calls.clear()
        await layer.read_into(CLUSTER, memoryview(bytearray(4 * CLUSTER)))
        assert inner.made("read") == [(CLUSTER, 4 * CLUSTER)]


async def test_a_bad_place_of_the_base_that_was_overwritten_does_no_harm():
    inner = faulty()
    async with opened(inner) as layer:
        await write(layer, CLUSTER, b"d" * CLUSTER)
        inner.fail("read", error=DeviceError("bad block"), offset=CLUSTER + 1, times=None)
        expected = await contents(pattern())
        expected[CLUSTER : 2 * CLUSTER] = b"d" * CLUSTER
        assert await contents(layer) == expected


async def test_an_error_of_the_base_reaches_the_read_that_needs_it_and_no_other():
    inner = faulty()
    async with opened(inner) as layer:
        inner.fail("read", error=DeviceError("bad block"), offset=CLUSTER, times=None)
        with pytest.raises(DeviceError, match="bad block"):
            await layer.read(0, 2 * CLUSTER)
        assert await layer.read(2 * CLUSTER, 8) == (2 * CLUSTER).to_bytes(8, "big")


async def test_a_write_that_cannot_read_the_base_changes_nothing_and_can_be_repeated():
    inner = faulty()
    async with opened(inner) as layer:
        inner.fail("read", error=DeviceError("bad block"))
        with pytest.raises(DeviceError, match="bad block"):
            await write(layer, 10, b"new")
        assert await contents(layer) == await contents(pattern())
        await write(layer, 10, b"new")
        assert await layer.read(8, 8) == b"\0\0new\0\0\x08"


async def test_a_read_that_would_wait_for_the_base_is_declined():
    inner = faulty()
    async with opened(inner) as layer:
        await write(layer, 0, bytes(CLUSTER))
        inner.hold("read")
        assert layer.read_into_nowait(0, memoryview(bytearray(CLUSTER)))
        assert not layer.read_into_nowait(0, memoryview(bytearray(CLUSTER + 1)))


async def test_zeroed_clusters_are_holes_and_take_no_space(tmp_path):
    path = tmp_path / "x.cow"
    async with opened(pattern(1 << 20), path=path) as layer:
        await write(layer, 0, b"d" * (1 << 20))
        full = path.stat().st_blocks
        await zero(layer, 100, (1 << 20) - 100)
        assert full - path.stat().st_blocks >= (1 << 20) // 512 * 9 // 10
        assert await contents(layer) == b"d" * 100 + bytes((1 << 20) - 100)
        assert await layer.extents(0, 1 << 20) == [
            Extent(CLUSTER, DATA),
            Extent((1 << 20) - CLUSTER, ZERO_HOLE),
        ]


@pytest.mark.parametrize("may_trim", [True, False])
@pytest.mark.parametrize("before", ["base", "data", "zero"])
@pytest.mark.parametrize(("offset", "length"), [(100, 8), (4000, 200), (4000, 9000), (0, SIZE)])
async def test_zeroes_are_exactly_where_they_were_asked_for(before, offset, length, may_trim):
    async with opened(pattern()) as layer:
        if before == "data":
            await write(layer, 0, b"d" * SIZE)
        elif before == "zero":
            await zero(layer, 0, SIZE)
        expected = await contents(layer)
        await zero(layer, offset, length, may_trim=may_trim)
        expected[offset : offset + length] = bytes(length)
        assert await contents(layer) == expected


async def test_whole_clusters_are_zeroed_without_reading_the_base_or_writing(tmp_path):
    inner = recording()
    async with opened(inner, dir=tmp_path) as layer:
        await zero(layer, 0, SIZE, fast=True)
        assert inner.calls == []
        assert os.fstat(layer._data.place(0)[0]).st_size == 0


async def test_a_write_into_a_zero_cluster_leaves_zeroes_around_it():
    async with opened(pattern()) as layer:
        await write(layer, 0, b"d" * SIZE)
        await zero(layer, 0, SIZE)
        await write(layer, 100, b"new")
        expected = bytearray(SIZE)
        expected[100:103] = b"new"
        assert await contents(layer) == expected


async def test_where_the_file_system_cannot_punch_zeroes_are_zeroes_all_the_same(monkeypatch):
    monkeypatch.setattr(DataFile, "punch", lambda *_: False)
    async with opened(pattern()) as layer:
        await write(layer, 0, b"d" * SIZE)
        await zero(layer, 10, SIZE - 20)
        await write(layer, 2 * CLUSTER + 10, b"new")
        expected = bytearray(b"d" * 10 + bytes(SIZE - 20) + b"d" * 10)
        expected[2 * CLUSTER + 10 : 2 * CLUSTER + 13] = b"new"
        assert await contents(layer) == expected


async def test_a_fast_zero_that_would_copy_from_the_base_is_refused_untouched():
    inner = recording()
    async with opened(inner) as layer:
        with pytest.raises(NotSupportedError):
            await zero(layer, 100, 8, fast=True)
        assert inner.calls == []
        await write(layer, 0, b"d" * CLUSTER)
        await zero(layer, 100, 8, fast=True)
        assert await layer.read(99, 10) == b"d" + bytes(8) + b"d"


async def test_a_trim_makes_whole_clusters_zero_and_spares_what_is_around_them():
    inner = recording()
    async with opened(inner) as layer:
        await write(layer, 0, b"d" * 10)
        expected = await contents(layer)
        inner.calls.clear()
        await layer.trim(100, 3 * CLUSTER, fua=False)
        assert inner.calls == []
        expected[100 : 3 * CLUSTER] = bytes(3 * CLUSTER - 100)  # the first cluster was written
        assert await contents(layer) == expected  # the last, partial one is the base's still


async def test_extents_of_the_base_are_the_bases():
    base = MemorySource(MemoryParams(size=1 << 20))
    await write(base, 128 * K, b"data")
    async with opened(base) as layer:
        await write(layer, 0, b"x")
        assert await layer.extents(0, 1 << 20) == [
            Extent(CLUSTER, DATA),
            Extent(128 * K - CLUSTER, ZERO_HOLE),
            Extent(64 * K, DATA),
            Extent((1 << 20) - 192 * K, ZERO_HOLE),
        ]
        assert await layer.extents(100, 8) == [Extent(8, DATA)]


class ShortExtents(PatternSource):
    async def extents(self, offset, length):
        return [Extent(1000, ZERO_HOLE), Extent(10 << 20, DATA)][: 1 if length > 1000 else 2]


async def test_extents_stop_where_the_base_stops_and_never_reach_beyond_its_part():
    async with opened(ShortExtents(PatternParams(size=SIZE))) as layer:
        await write(layer, CLUSTER, b"d")
        assert await layer.extents(0, SIZE) == [Extent(1000, ZERO_HOLE)]
        assert await layer.extents(CLUSTER - 500, SIZE // 2) == [
            Extent(500, ZERO_HOLE),
            Extent(CLUSTER, DATA),
            Extent(1000, ZERO_HOLE),
        ]


class Lending(PatternSource):
    def file_range(self, offset, length):
        return FileRange(99, offset)


async def test_a_range_is_lent_when_all_of_it_is_in_one_file(tmp_path):
    async with opened(Lending(PatternParams(size=SIZE)), path=tmp_path / "x.cow") as layer:
        await write(layer, CLUSTER, b"d" * 2 * CLUSTER)
        await zero(layer, 3 * CLUSTER, CLUSTER)
        assert layer.file_range(10, 20) == FileRange(99, 10)
        lent = layer.file_range(CLUSTER + 10, CLUSTER)
        assert os.pread(lent.fd, CLUSTER, lent.offset) == b"d" * CLUSTER
        assert layer.file_range(0, CLUSTER + 1) is None
        assert layer.file_range(3 * CLUSTER, 8) is None


async def test_cache_goes_to_the_base_for_what_is_the_bases():
    inner = recording()
    async with opened(inner) as layer:
        await write(layer, CLUSTER, bytes(CLUSTER))
        inner.calls.clear()
        await layer.cache(0, 4 * CLUSTER)
        assert inner.made("cache") == [(0, CLUSTER), (2 * CLUSTER, 2 * CLUSTER)]
