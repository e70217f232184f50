"""The chunks of an LZMA2 block: found from their headers, and what they say of the data."""

import lzma
import random

import pytest

from nbdserve.errors import CorruptDataError
from nbdserve.formats.lzma2 import ChunkWalk
from nbdserve.formats.xzblock import BlockDecoder
from nbdserve.formats.xzindex import ReadRange, advance, read_index

PROSE = random.Random(1).randbytes(1 << 20).hex().encode()
NOISE = random.Random(2).randbytes(1 << 20)


def block_of(packed):
    reader = read_index(len(packed))
    wanted = advance(reader, None)
    while isinstance(wanted, ReadRange):
        wanted = advance(reader, packed[wanted.offset :][: wanted.length])
    block = wanted.block(0)
    return block, packed[block.fetch_offset :][: block.fetch_length]


@pytest.mark.parametrize("step", [1, 7, 4096, 1 << 30])
def test_the_chunks_add_up_to_the_block_however_they_come(step):
    data = PROSE[:300_000] + NOISE[:300_000] + bytes(300_000)
    block, packed = block_of(lzma.compress(data, preset=1))
    walk = ChunkWalk()
    for at in range(block.lead, len(packed), step):
        walk.feed(packed[at : at + step])
    assert walk.settled(len(data) + 1) == len(data)
    assert walk.settled(0) == len(data), "what is settled stays so"


def test_the_dictionary_is_read_from_the_header():
    for preset, size in ((0, 256 << 10), (6, 8 << 20), (9, 64 << 20)):
        block, packed = block_of(lzma.compress(b"x" * 100, preset=preset))
        walk = ChunkWalk()
        walk.feed(packed[block.lead :])
        assert walk.dictionary == size


def test_a_chunk_is_settled_only_when_the_next_one_has_given_data():
    block, packed = block_of(lzma.compress(NOISE, preset=0))
    walk = ChunkWalk()
    walk.feed(packed[block.lead :])
    ends = list(walk._ends)
    assert len(ends) > 10
    assert walk.settled(ends[0]) == 0
    assert walk.settled(ends[0] + 1) == ends[0]
    assert walk.settled(ends[3] + 1) == ends[3]


def test_nothing_is_proven_from_the_first_stored_chunk_on():
    data = PROSE[:300_000] + NOISE[:300_000] + PROSE[:300_000]
    block, packed = block_of(lzma.compress(data, preset=1))
    walk = ChunkWalk()
    walk.feed(packed[block.lead :])
    proven = walk.proven(len(data) + 1)
    assert 0 < proven <= 300_000 + 65536
    assert walk.settled(len(data) + 1) == len(data)
    coded = ChunkWalk()
    block, packed = block_of(lzma.compress(PROSE, preset=1))
    coded.feed(packed[block.lead :])
    assert coded.proven(len(PROSE) + 1) == len(PROSE)


def feed_all(decoder, packed, out):
    for at in range(0, len(packed), 10_000):
        for chunk in decoder.feed(bytes(packed[at : at + 10_000])):
            out += chunk
        assert out[: decoder.settled] == PROSE[: decoder.settled]


@pytest.mark.parametrize("preset", [0, 6])
def test_damage_in_a_coded_chunk_never_reaches_what_is_settled(preset):
    block, packed = block_of(lzma.compress(PROSE, preset=preset))
    rng = random.Random(preset)
    for _ in range(40):
        bad = bytearray(packed)
        bad[rng.randrange(block.lead + 12, len(bad) - 12)] ^= 1 << rng.randrange(8)
        decoder = BlockDecoder(block, memlimit=1 << 28)
        out = bytearray()
        with pytest.raises(CorruptDataError):
            feed_all(decoder, bad, out)
        assert out[: decoder.settled] == PROSE[: decoder.settled]


def test_nonsense_settles_nothing():
    walk = ChunkWalk()
    walk.feed(bytes([2]) + b"\x00" * 11 + b"\x55" + NOISE[:1000])
    assert walk.settled(1 << 40) == 0
