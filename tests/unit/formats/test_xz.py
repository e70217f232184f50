"""The layout of an xz file: splitting ranges, and which blocks are fetched together."""

from array import array

from hypothesis import given
from hypothesis import strategies as st

from nbdserve.formats.xz import Check, XzIndex


def make(sizes, unpadded):
    starts, packed_at = array("Q", [0]), array("Q")
    at = 12
    for size, length in zip(sizes, unpadded, strict=True):
        starts.append(starts[-1] + size)
        packed_at.append(at)
        at += -(-length // 4) * 4
    return XzIndex(at + 40, 0, starts, packed_at, array("Q", unpadded), array("Q", [0]), b"\4")


blocks = st.lists(st.tuples(st.integers(0, 50), st.integers(5, 200)), min_size=1, max_size=20)


@given(blocks, st.data())
def test_pieces_cover_a_range_once_and_in_order(sizes, data):
    index = make(*zip(*sizes, strict=True))
    offset = data.draw(st.integers(0, index.size))
    length = data.draw(st.integers(0, index.size - offset))
    at = 0
    for piece in index.pieces(offset, length):
        assert piece.length > 0
        assert piece.at == at
        assert index.starts[piece.unit] + piece.start == offset + at
        assert piece.start + piece.length <= index.block_size(piece.unit)
        at += piece.length
    assert at == length


@given(blocks, st.integers(0, 200), st.integers(1, 400))
def test_every_block_of_a_run_names_the_same_run(sizes, small, window):
    index = make(*zip(*sizes, strict=True))
    for number in range(index.blocks):
        run = index.neighbours(number, small=small, window=window)
        assert number in run
        assert len(run) == 1 or all(index.unpadded[n] <= small for n in run)
        assert all(index.neighbours(n, small=small, window=window) == run for n in run)


def test_a_block_tells_what_to_fetch():
    index = make([100, 50], [21, 32])
    first, second = index.block(0), index.block(1)
    assert (first.fetch_offset, first.fetch_length) == (0, 12 + 24)
    assert (second.fetch_offset, second.fetch_length) == (36, 32)
    assert (second.offset, second.size, second.check) == (100, 50, Check.CRC64)


def test_a_million_blocks_are_24_bytes_each():
    index = make([4096] * 1_000_000, [100] * 1_000_000)
    assert index.block_at(4096 * 777_777 + 5) == 777_777
    arrays = (index.starts, index.packed_at, index.unpadded)
    assert sum(len(a) * a.itemsize for a in arrays) <= 24_000_008
    assert index.layout().largest_block == 4096
