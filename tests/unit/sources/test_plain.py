"""The sources without a file: memory, null, pattern and data."""

import struct

import pytest

from nbdserve.errors import ConfigError
from nbdserve.extents import DATA, ZERO_HOLE, Extent
from nbdserve.params import params_from
from nbdserve.registry import find_source


def make(name, *given):
    cls = find_source(name)
    return cls(params_from(cls.Params, given, element=f"source {name}"))


async def test_memory_reads_back_what_was_written():
    disk = make("memory", ("", "1M"))
    await disk.write(65530, memoryview(b"across clusters"), fua=True)
    assert await disk.read(65528, 20) == b"\0\0across clusters\0\0\0"


async def test_memory_is_sparse_however_large():
    disk = make("memory", ("size", "1T"))
    await disk.write((1 << 40) - 4, memoryview(b"last"), fua=False)
    await disk.write(1 << 30, memoryview(bytes(1 << 20)), fua=False)
    assert len(disk._clusters) == 1, "zeroes allocate nothing"
    assert await disk.extents((1 << 40) - 131072, 131072) == [
        Extent(65536, ZERO_HOLE),
        Extent(65536, DATA),
    ]


async def test_memory_zeroes_and_trims_give_memory_back():
    disk = make("memory", ("size", "1M"))
    await disk.write(0, memoryview(b"x" * (1 << 20)), fua=False)
    await disk.write_zeroes(100, 200_000, fua=False, may_trim=True, fast=True)
    assert await disk.read(0, 1 << 20) == b"x" * 100 + bytes(200_000) + b"x" * ((1 << 20) - 200_100)
    assert len(disk._clusters) == 14
    await disk.trim(0, 1 << 20, fua=False)
    assert disk._clusters == {}
    assert await disk.extents(0, 1 << 20) == [Extent(1 << 20, ZERO_HOLE)]


async def test_memory_zeroing_a_terabyte_is_quick():
    disk = make("memory", ("size", "1T"))
    await disk.write(5, memoryview(b"x"), fua=False)
    await disk.write_zeroes(0, 1 << 40, fua=False, may_trim=False, fast=True)
    assert disk._clusters == {}


async def test_null_reads_zeroes_and_forgets_writes():
    disk = make("null", ("", "1G"))
    await disk.write(0, memoryview(b"gone"), fua=True)
    assert await disk.read(0, 3 << 20) == bytes(3 << 20)
    assert await disk.extents(5, 1000) == [Extent(1000, ZERO_HOLE)]


@pytest.mark.parametrize("offset", [0, 1, 7, 8, 4093])
@pytest.mark.parametrize("length", [1, 7, 8, 9, 5000])
async def test_each_word_of_pattern_is_its_own_offset(offset, length):
    disk = make("pattern", ("", "1M"))
    whole = b"".join(struct.pack(">Q", at) for at in range(0, 16384, 8))
    assert await disk.read(offset, length) == whole[offset : offset + length]


async def test_pattern_of_an_odd_size_has_its_last_bytes():
    disk = make("pattern", ("size", "1001"))
    assert await disk.read(1000, 1) == b"\0"


@pytest.mark.parametrize(
    ("given", "contents"),
    [
        ([("", "text")], b"text"),
        ([("hex", "55aa")], b"\x55\xaa"),
        ([("base64", "AQID")], b"\1\2\3"),
        ([("", "x"), ("size", "4")], b"x\0\0\0"),
    ],
)
async def test_data_is_what_was_written_down(given, contents):
    disk = make("data", *given)
    assert disk.info.size == len(contents)
    assert await disk.read(0, len(contents)) == contents


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "exactly one"),
        ([("", "a"), ("hex", "00")], "exactly one"),
        ([("hex", "5")], "hexadecimal"),
        ([("base64", "?")], "base64"),
        ([("", "long"), ("size", "1")], "smaller than the contents"),
    ],
)
def test_data_that_will_not_do_is_told(given, message):
    with pytest.raises(ConfigError, match=message):
        make("data", *given)
