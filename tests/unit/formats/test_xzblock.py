"""Decoding one block: every check and filter, and nothing but what the index promised."""

import lzma
import threading
from dataclasses import replace

import pytest

from nbdserve.errors import CorruptDataError, DeviceError
from nbdserve.formats.xzblock import GRAIN, decode_block
from nbdserve.formats.xzindex import ReadRange, advance, read_index


def index_of(packed):
    reader = read_index(len(packed))
    wanted = advance(reader, None)
    while isinstance(wanted, ReadRange):
        wanted = advance(reader, packed[wanted.offset :][: wanted.length])
    return wanted


def bytes_of(block, packed):
    return memoryview(packed)[block.fetch_offset :][: block.fetch_length]


def decode(packed, number=0, memlimit=256 << 20):
    block = index_of(packed).block(number)
    return decode_block(block, bytes_of(block, packed), memlimit=memlimit, stop=threading.Event())


X86 = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 0}]
DELTA = [{"id": lzma.FILTER_DELTA, "dist": 8}, {"id": lzma.FILTER_LZMA2, "preset": 0}]
ARM64_LIKE = [{"id": lzma.FILTER_ARM}, {"id": lzma.FILTER_LZMA2, "preset": 0}]
DATA = b"".join((n | 1 << 62).to_bytes(8, "big") for n in range(0, 3 << 20, 8))


@pytest.mark.parametrize(
    "check", [lzma.CHECK_NONE, lzma.CHECK_CRC32, lzma.CHECK_CRC64, lzma.CHECK_SHA256]
)
@pytest.mark.parametrize("filters", [X86, DELTA, ARM64_LIKE, None])
def test_every_check_and_filter_is_decoded(check, filters):
    data = b"\xe8\0\0\0\0\x90" * 500 + DATA[:5001]
    found = decode(lzma.compress(data, check=check, filters=filters))
    assert found.data == data
    assert found.weight == found.size == len(data)


@pytest.mark.parametrize("size", [1, GRAIN - 1, GRAIN, GRAIN + 1, (1 << 20) + 3, len(DATA)])
def test_sizes_around_the_steps_come_out_whole(size):
    assert decode(lzma.compress(DATA[:size], preset=0)).data == DATA[:size]


@pytest.mark.parametrize("size", [1, 4096, 3 << 20])
def test_a_block_of_zeroes_is_a_mark_and_no_memory(size):
    found = decode(lzma.compress(bytes(size), preset=0))
    assert (found.data, found.size, found.weight) == (None, size, 0)


def test_zeroes_within_a_large_block_are_not_stored():
    data = bytes(5 << 20) + b"x" + bytes(3 << 20)
    found = decode(lzma.compress(data, preset=0))
    assert found.data == data
    assert 0 < found.weight <= 2 * GRAIN


def test_a_flipped_bit_in_a_check_is_corrupt(xz):
    packed = bytearray(xz(DATA[:9000], "--block-size=4KiB"))
    block = index_of(packed).block(1)
    packed[block.packed_offset + block.unpadded_size - 1] ^= 1
    with pytest.raises(CorruptDataError, match=r"block 1 at byte \d+ .*4096 to 8192.* corrupt"):
        decode(packed, 1)
    assert decode(packed, 0).data == DATA[:4096]


def test_a_block_of_another_size_than_the_index_says_is_corrupt():
    packed = lzma.compress(DATA[:5000])
    block = index_of(packed).block(0)
    for wrong in (
        replace(block, size=4999),
        replace(block, size=5001),
        replace(block, unpadded_size=block.unpadded_size - 1),
        replace(block, unpadded_size=block.unpadded_size + 4),
    ):
        with pytest.raises(CorruptDataError, match="corrupt"):
            decode_block(wrong, bytes_of(wrong, packed), memlimit=1 << 28, stop=threading.Event())


def test_a_stream_header_that_disagrees_is_corrupt():
    packed = bytearray(lzma.compress(DATA[:5000], check=lzma.CHECK_CRC32))
    packed[:12] = lzma.compress(b"", check=lzma.CHECK_CRC64)[:12]
    with pytest.raises(CorruptDataError, match="disagree"):
        decode(packed)


def test_a_dictionary_over_the_limit_is_refused_with_the_key_to_raise():
    packed = lzma.compress(DATA, preset=9)
    with pytest.raises(DeviceError, match="raise memlimit") as caught:
        decode(packed, memlimit=16 << 20)
    assert not isinstance(caught.value, CorruptDataError)
    assert decode(packed, memlimit=80 << 20).data == DATA


def test_a_decoder_that_is_stopped_gives_up():
    packed = lzma.compress(DATA, preset=0)
    block = index_of(packed).block(0)
    stop = threading.Event()
    stop.set()
    assert decode_block(block, bytes_of(block, packed), memlimit=1 << 28, stop=stop) is None
