"""Decoding one block: every check and filter, and nothing but what the index promised."""

import lzma
from dataclasses import replace

import pytest

from nbdserve.errors import CorruptDataError, DeviceError
from nbdserve.formats.xzblock import STEP, BlockDecoder
from xz_chain import index_of


def bytes_of(block, packed):
    return memoryview(packed)[block.fetch_offset :][: block.fetch_length]


def decode(packed, number=0, memlimit=256 << 20, block=None, step=None):
    """Decode one block, fed in steps; the data, once it is verified."""
    block = block or index_of(packed).block(number)
    decoder = BlockDecoder(block, memlimit=memlimit)
    given = bytes_of(block, packed)
    step = step or max(len(given), 1)
    found = [
        chunk for at in range(0, len(given), step) for chunk in decoder.feed(given[at : at + step])
    ]
    assert decoder.verified
    assert decoder.received == block.fetch_length
    assert decoder.settled == decoder.done == block.size
    return b"".join(found)


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
    packed = lzma.compress(data, check=check, filters=filters)
    assert decode(packed) == data
    assert decode(packed, step=7) == data


@pytest.mark.parametrize("size", [1, STEP - 1, STEP, STEP + 1, len(DATA)])
@pytest.mark.parametrize("step", [None, 1000])
def test_sizes_around_the_steps_come_out_whole(size, step):
    assert decode(lzma.compress(DATA[:size], preset=0), step=step) == DATA[:size]


@pytest.mark.parametrize("step", range(1, 26))
def test_the_bytes_may_come_in_pieces_of_any_size(step):
    assert decode(lzma.compress(DATA[:1000]), step=step) == DATA[:1000]


def test_nothing_is_verified_before_the_last_byte_has_come():
    packed = lzma.compress(DATA[:5000])
    block = index_of(packed).block(0)
    decoder = BlockDecoder(block, memlimit=1 << 28)
    given = bytes_of(block, packed)
    assert b"".join(decoder.feed(given[:-1])) == DATA[:5000]
    assert not decoder.verified
    assert decoder.settled == 0, "its one chunk has no successor yet"
    assert list(decoder.feed(given[-1:])) == []
    assert decoder.verified


def test_a_flipped_bit_in_a_check_is_corrupt(xz):
    packed = bytearray(xz(DATA[:9000], "--block-size=4KiB"))
    block = index_of(packed).block(1)
    packed[block.packed_offset + block.unpadded_size - 1] ^= 1
    with pytest.raises(CorruptDataError, match=r"block 1 at byte \d+ .*4096 to 8192.* corrupt"):
        decode(packed, 1)
    assert decode(packed, 0) == DATA[:4096]


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
            decode(packed, block=wrong)


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
    assert decode(packed, memlimit=80 << 20) == DATA
