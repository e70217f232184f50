"""Blocks made by us, judged by the xz tool, and read back by our own parser."""

import itertools
import os
import struct
import subprocess
import threading

import pytest

from nbdserve.formats.xz import Check
from nbdserve.formats.xzindex import ReadRange, advance, read_index
from nbdserve.formats.xzpack import HOLE, BlockRecord, Packing, pack_block, stream_end, stream_start

UNIT = 64 << 10


def packed_block(data, size, packing):
    steps = []
    block = pack_block(data, size, packing, stop=threading.Event(), advanced=steps.append)
    assert sum(steps) == size
    return block


def packed_file(data, packing, *, holes=()):
    """Pack bytes; the blocks numbered in `holes` are given as such."""
    blocks = []
    for number, at in enumerate(range(0, len(data), packing.block_size)):
        part = data[at : at + packing.block_size]
        given = HOLE if number in holes else memoryview(part)
        blocks.append(packed_block(given, len(part), packing))
    parts = itertools.chain.from_iterable(block.parts for block in blocks)
    records = [block.record for block in blocks]
    return stream_start(packing) + b"".join(parts) + stream_end(packing, records)


def xz(*options, given):
    return subprocess.run(["xz", *options], input=given, capture_output=True, check=True).stdout


def index_of(packed):
    reader = read_index(len(packed))
    wanted = advance(reader, None)
    while isinstance(wanted, ReadRange):
        wanted = advance(reader, packed[wanted.offset :][: wanted.length])
    return wanted


WORDS = struct.pack(">40000Q", *range(0, 320_000, 8))


@pytest.mark.parametrize("check", list(Check))
@pytest.mark.parametrize("size", [1, 4095, UNIT, UNIT + 1, 320_000])
def test_what_is_packed_the_xz_tool_unpacks(check, size):
    data = WORDS[:size]
    packed = packed_file(data, Packing(UNIT, 1, check))
    xz("-t", given=packed)
    assert xz("-dc", given=packed) == data


@pytest.mark.parametrize("preset", range(10))
def test_every_preset_is_understood(preset):
    packed = packed_file(WORDS, Packing(UNIT, preset))
    assert xz("-dc", given=packed) == WORDS


def test_data_that_cannot_be_compressed_is_packed_all_the_same():
    data = os.urandom(200_000)
    assert xz("-dc", given=packed_file(data, Packing(UNIT))) == data


def test_an_image_of_no_bytes_is_a_stream_of_no_blocks():
    packed = packed_file(b"", Packing(UNIT))
    assert xz("-dc", given=packed) == b""
    assert index_of(packed).blocks == 0


def test_both_sizes_stand_in_every_block_header(tmp_path):
    """As `xz -T` writes them: without them xz itself cannot decode in parallel."""
    path = tmp_path / "a.xz"
    path.write_bytes(packed_file(WORDS, Packing(UNIT)))
    told = subprocess.run(["xz", "-lvv", path], capture_output=True, text=True, check=True).stdout
    assert "Sizes in headers:  Yes" in told
    assert told.count(" cu ") == 5


def test_the_index_is_what_our_own_parser_reads():
    packing = Packing(UNIT)
    packed = packed_file(WORDS, packing)
    index = index_of(packed)
    assert list(index.starts) == [0, UNIT, 2 * UNIT, 3 * UNIT, 4 * UNIT, 320_000]
    assert index.layout().checks == (Check.CRC64,)


def test_a_hole_is_packed_as_its_zeroes_are():
    packing = Packing(UNIT)
    as_data = packed_file(bytes(2 * UNIT), packing)
    assert packed_file(bytes(2 * UNIT), packing, holes={0, 1}) == as_data


def test_an_index_of_many_blocks_takes_no_time_that_grows_with_its_square():
    """A tebibyte in 1 MiB blocks: joining bytes one record at a time would copy terabytes."""
    packing = Packing(1 << 20)
    count = 1 << 20
    end = stream_end(packing, itertools.repeat(BlockRecord(100, 1 << 20), count))
    assert len(end) == 4 * count + 20


def test_the_dictionary_is_no_larger_than_a_block():
    assert Packing(16 << 20, 9).dictionary == 16 << 20
    assert Packing(16 << 20, 6).dictionary == 8 << 20
    assert Packing(UNIT, 0).dictionary == UNIT


def test_packing_stops_at_the_next_step_when_told():
    stop = threading.Event()
    steps = []

    def advanced(length):
        steps.append(length)
        stop.set()

    assert pack_block(HOLE, 64 << 20, Packing(64 << 20, 0), stop=stop, advanced=advanced) is None
    assert steps == [1 << 20]
