"""The RAM disk: what was written, and no more memory than that takes."""

import struct

import pytest

from nbdserve.extents import DATA, ZERO_HOLE, Extent
from nbdserve.sources.memory import MemoryParams, MemorySource

CLUSTER = 64 << 10
TIB = 1 << 40


def make(size):
    return MemorySource(MemoryParams(size=size))


async def test_it_reads_back_what_was_written():
    disk = make(1 << 20)
    await disk.write(65530, memoryview(b"across clusters"), fua=True)
    assert await disk.read(65528, 20) == b"\0\0across clusters\0\0\0"


async def test_every_read_is_answered_at_once():
    disk = make(1 << 20)
    assert disk.read_into_nowait(0, memoryview(bytearray(1 << 20)))


async def test_it_is_sparse_however_large():
    disk = make(TIB)
    await disk.write(TIB - 4, memoryview(b"last"), fua=False)
    await disk.write(1 << 30, memoryview(bytes(1 << 20)), fua=False)
    assert len(disk._clusters) == 1, "zeroes allocate nothing"
    assert await disk.extents(0, TIB) == [
        Extent(TIB - CLUSTER, ZERO_HOLE),
        Extent(CLUSTER, DATA),
    ]


async def test_zeroes_and_trims_give_memory_back():
    disk = make(1 << 20)
    await disk.write(0, memoryview(b"x" * (1 << 20)), fua=False)
    await disk.write_zeroes(100, 200_000, fua=False, may_trim=True, fast=True)
    assert await disk.read(0, 1 << 20) == b"x" * 100 + bytes(200_000) + b"x" * ((1 << 20) - 200_100)
    assert len(disk._clusters) == 14
    await disk.trim(0, 1 << 20, fua=False)
    assert disk._clusters == {}
    assert await disk.extents(0, 1 << 20) == [Extent(1 << 20, ZERO_HOLE)]


async def test_zeroing_a_terabyte_looks_only_at_what_exists():
    disk = make(TIB)
    await disk.write(5, memoryview(b"x"), fua=False)
    await disk.write_zeroes(0, TIB, fua=False, may_trim=False, fast=True)
    assert disk._clusters == {}


@pytest.mark.parametrize(
    ("offset", "length", "wanted"),
    [
        (0, 10 * CLUSTER, [(2 * CLUSTER, ZERO_HOLE), (CLUSTER, DATA), (7 * CLUSTER, ZERO_HOLE)]),
        (2 * CLUSTER + 1, 5, [(5, DATA)]),
        (2 * CLUSTER + 1, CLUSTER, [(CLUSTER - 1, DATA), (1, ZERO_HOLE)]),
        (2 * CLUSTER - 1, 2, [(1, ZERO_HOLE), (1, DATA)]),
        (9 * CLUSTER, CLUSTER, [(CLUSTER, ZERO_HOLE)]),
    ],
)
async def test_extents_are_those_of_the_clusters(offset, length, wanted):
    disk = make(10 * CLUSTER)
    await disk.write(2 * CLUSTER + 7, memoryview(b"x"), fua=False)
    assert await disk.extents(offset, length) == [Extent(*extent) for extent in wanted]


async def test_extents_of_a_full_disk_stop_short_of_much_work():
    disk = make(TIB)
    for number in range(3000):
        await disk.write(number * 2 * CLUSTER, memoryview(b"x"), fua=False)
    found = await disk.extents(0, TIB)
    assert 0 < sum(extent.length for extent in found) < TIB
    assert found[:2] == [Extent(CLUSTER, DATA), Extent(CLUSTER, ZERO_HOLE)]


async def test_the_last_partial_cluster_is_a_disk_too():
    disk = make(CLUSTER + 3)
    await disk.write(CLUSTER, memoryview(b"end"), fua=False)
    assert await disk.read(CLUSTER - 1, 4) == b"\0end"
    assert await disk.extents(0, CLUSTER + 3) == [Extent(CLUSTER, ZERO_HOLE), Extent(3, DATA)]
    assert struct.unpack(">H", await disk.read(CLUSTER, 2)) == (0x656E,)
