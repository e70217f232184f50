"""The map of a persistent cache, in bytes: what is whole is read, what is not is left out."""

import random
import struct
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbdserve.errors import CorruptDataError, NotSupportedError
from nbdserve.formats.cachemap import (
    BLOCK,
    RECORD,
    CacheHeader,
    Kind,
    Record,
    encode_cache_header,
    encode_records,
    identity_digest,
    parse_cache_header,
    parse_records,
)

HEADER = CacheHeader(65536, 5 << 40, identity_digest("an image"), 0x12345678, "an image")
RECORDS = [
    Record(Kind.DATA, 0, 0xDEADBEEF),
    Record(Kind.ZERO, 7, 1),
    Record(Kind.GONE, 0xFFFFFFFF, 0),
    Record(Kind.USED, 3, 1_800_000_000),
]


def test_a_header_is_read_back():
    block = encode_cache_header(HEADER)
    assert len(block) == BLOCK
    assert parse_cache_header(block) == HEADER


def test_the_header_is_as_documented():
    block = encode_cache_header(HEADER)
    fixed = struct.pack(">8sIIIQ", b"nbdsmap\n", 1, 65536, 0x12345678, 5 << 40)
    assert block.startswith(fixed + HEADER.digest + b"an image\0")
    assert block[-4:] == struct.pack(">I", crc32(block[:-4]))


def test_a_long_identity_is_cut_and_its_digest_is_not():
    long = CacheHeader(4096, 1, identity_digest("é" * 5000), 0, "é" * 5000)
    found = parse_cache_header(encode_cache_header(long))
    assert found.digest == long.digest
    assert found.identity.startswith("é" * 1000)


@pytest.mark.parametrize("place", [0, 9, 13, 21, 40, 2000, BLOCK - 1])
def test_a_damaged_header_is_told(place):
    block = bytearray(encode_cache_header(HEADER))
    block[place] ^= 1
    with pytest.raises(CorruptDataError):
        parse_cache_header(bytes(block))


@pytest.mark.parametrize("block", [b"", b"nbdsmap\n", bytes(BLOCK)])
def test_what_is_no_header_is_told(block):
    with pytest.raises(CorruptDataError, match="is no map"):
        parse_cache_header(block)


def test_another_version_is_told_from_damage():
    block = bytearray(encode_cache_header(HEADER))
    block[8:12] = struct.pack(">I", 2)
    block[-4:] = struct.pack(">I", crc32(block[:-4]))
    with pytest.raises(NotSupportedError, match="version 2, this nbdserve reads 1"):
        parse_cache_header(bytes(block))


def test_records_are_read_back():
    data = encode_records(RECORDS, 5)
    assert len(data) == len(RECORDS) * RECORD
    assert list(parse_records(data, 5)) == RECORDS


def test_a_record_is_as_documented():
    body = struct.pack(">III", 7, 0xDEADBEEF, 1)
    assert encode_records([Record(Kind.DATA, 7, 0xDEADBEEF)], 99) == body + struct.pack(
        ">I", crc32(body, 99)
    )


@given(st.lists(st.integers(0, len(RECORDS) * RECORD - 1), max_size=4), st.integers(0, 2**32 - 1))
def test_a_damaged_record_is_left_out_and_no_other(places, salt):
    data = bytearray(encode_records(RECORDS, salt))
    for place in set(places):
        data[place] ^= 0x55
    damaged = {place // RECORD for place in places}
    assert list(parse_records(bytes(data), salt)) == [
        record for number, record in enumerate(RECORDS) if number not in damaged
    ]


def test_a_record_that_was_cut_short_is_left_out():
    data = encode_records(RECORDS, 5)
    assert list(parse_records(data[:-1], 5)) == RECORDS[:-1]


def test_records_of_another_file_are_left_out():
    assert list(parse_records(encode_records(RECORDS, 5), 6)) == []


def test_a_kind_nobody_knows_is_left_out():
    body = struct.pack(">III", 7, 0, 9)
    assert list(parse_records(body + struct.pack(">I", crc32(body, 5)), 5)) == []


def test_noise_is_no_record():
    assert list(parse_records(random.Random(1).randbytes(1 << 16), 5)) == []
