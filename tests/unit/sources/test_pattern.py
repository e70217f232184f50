"""The disk whose words are their own offsets."""

import struct

import pytest

from nbdserve.errors import ReadOnlyError
from nbdserve.sources.pattern import PatternParams, PatternSource


def expected(offset, length):
    first = offset // 8 * 8
    words = b"".join(struct.pack(">Q", at) for at in range(first, offset + length + 8, 8))
    return words[offset - first :][:length]


@pytest.mark.parametrize("offset", [0, 1, 7, 8, 4093, 65530, (1 << 24) - 3, (1 << 40) - 70_001])
@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 5000, 140_000])
async def test_each_word_is_its_own_offset(offset, length):
    disk = PatternSource(PatternParams(size=1 << 50))
    assert await disk.read(offset, length) == expected(offset, length)


async def test_every_byte_of_a_word_counts_at_the_far_end():
    disk = PatternSource(PatternParams(size=1 << 63))
    assert await disk.read(0x7123456789ABCDE8, 8) == bytes.fromhex("7123456789abcde8")


async def test_an_odd_size_has_its_last_bytes():
    disk = PatternSource(PatternParams(size=1001))
    assert disk.info.size == 1001
    assert await disk.read(992, 9) == struct.pack(">Q", 992) + b"\0"


async def test_it_is_read_only():
    disk = PatternSource(PatternParams(size=1 << 20))
    assert not disk.info.can & disk.info.can.WRITES
    with pytest.raises(ReadOnlyError):
        await disk.write(0, memoryview(b"x"), fua=False)
