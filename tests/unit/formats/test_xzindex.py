"""Reading an xz index: every shape of file, every way to be broken, and the requests made."""

import lzma
import struct
from binascii import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xz.common import create_xz_header, create_xz_index_footer, encode_mbi

from nbdserve.errors import CorruptDataError, DeviceError, NotSupportedError
from nbdserve.formats.xz import Check
from nbdserve.formats.xzindex import TAIL, ReadRange, advance, parse_records, read_index


def read(packed):
    """Run the parser over bytes; its index and the ranges it read."""
    reader = read_index(len(packed))
    ranges = []
    wanted = advance(reader, None)
    while isinstance(wanted, ReadRange):
        assert 0 <= wanted.offset < wanted.offset + wanted.length <= len(packed)
        ranges.append(wanted)
        wanted = advance(reader, packed[wanted.offset :][: wanted.length])
    return wanted, ranges


def decode_all(packed, index):
    """Cut every block out by the index and let lzma decode it."""
    data = b""
    for number in range(index.blocks):
        block = index.block(number)
        own = packed[block.packed_offset : block.fetch_offset + block.fetch_length]
        end = create_xz_index_footer(block.check, [(block.unpadded_size, block.size)])
        data += lzma.decompress(create_xz_header(block.check) + own + end)
        assert len(data) == block.offset + block.size
    return data


DATA = struct.pack(">4096Q", *range(0, 32768, 8))[:-3]


def test_a_file_in_blocks_costs_one_read(xz):
    packed = xz(DATA, "--block-size=4KiB")
    index, ranges = read(packed)
    assert ranges == [ReadRange(max(0, len(packed) - TAIL), min(TAIL, len(packed)))]
    assert (index.size, index.blocks) == (len(DATA), 8)
    assert [index.block(n).lead for n in range(8)] == [12] + [0] * 7
    assert decode_all(packed, index) == DATA


@pytest.mark.parametrize("check", ["none", "crc32", "crc64", "sha256"])
def test_every_check_is_told(xz, check):
    packed = xz(DATA, f"--check={check}")
    index, _ = read(packed)
    assert index.layout().checks == (Check[check.upper()],)
    assert decode_all(packed, index) == DATA


def test_streams_with_padding_between_and_behind_and_empty_ones(xz, empty_stream):
    parts = [DATA[:9000], b"", DATA[9000:9001], DATA[9001:]]
    checks = ["crc32", "crc64", "none", "sha256"]
    packed = b"".join(
        xz(part, f"--check={check}", "--block-size=4KiB") + bytes(4 * n)
        for n, (part, check) in enumerate(zip(parts, checks, strict=True))
    )
    packed = empty_stream + packed + empty_stream + bytes(8)
    index, ranges = read(packed)
    assert decode_all(packed, index) == DATA
    layout = index.layout()
    assert layout.streams == 6
    assert layout.padding == 4 + 8 + 12 + 8
    assert layout.checks == (Check.NONE, Check.CRC32, Check.CRC64, Check.SHA256)
    assert layout.largest_block == 4096
    assert (layout.size, layout.packed_size) == (len(DATA), len(packed))
    assert len(ranges) == 1


def test_an_empty_file_has_no_blocks(xz):
    index, _ = read(xz(b""))
    assert (index.size, index.blocks, index.layout().largest_block) == (0, 0, 0)


def test_empty_blocks_are_legal_and_never_chosen():
    records = [(24, 0), (32, 10), (24, 0), (24, 0), (32, 5), (24, 0)]
    blocks = b"\x01" * sum(size for size, _ in records)
    packed = create_xz_header(1) + blocks + create_xz_index_footer(1, records)
    index, _ = read(packed)
    assert index.size == 15
    assert [index.block_at(offset) for offset in (0, 9, 10, 14)] == [1, 1, 4, 4]
    assert [tuple(piece) for piece in index.pieces(8, 7)] == [(1, 8, 2, 0), (4, 0, 5, 2)]
    assert list(index.pieces(3, 0)) == []
    assert [index.block(n).lead for n in range(6)] == [12, 0, 0, 0, 0, 0]


def test_a_long_tail_of_padding_costs_few_reads(xz):
    packed = xz(DATA) + bytes(3 << 20)
    index, ranges = read(packed)
    assert index.padding == 3 << 20
    assert len(ranges) <= 7


def test_each_further_stream_costs_one_small_read(xz):
    stream = xz(bytes(range(256)) * 4096, "--block-size=64KiB")
    blob = create_xz_header(1) + bytes(100_000) + create_xz_index_footer(1, [(100_000, 1 << 20)])
    packed = stream + blob * 10
    index, ranges = read(packed)
    assert index.layout().streams == 11
    assert len(ranges) <= 11
    assert sum(length for _, length in ranges) <= TAIL + 10 * (4 << 10)


def test_an_index_larger_than_the_tail_is_read_once_more_and_only_the_rest():
    records = [(8 + n % 100, 4096) for n in range(40_000)]
    body = bytes(sum(-(-size // 4) * 4 for size, _ in records))
    end = create_xz_index_footer(4, records)
    packed = create_xz_header(4) + body + end
    index, ranges = read(packed)
    assert index.blocks == 40_000
    assert len(ranges) == 2
    assert sum(length for _, length in ranges) <= len(end)
    last = index.block(39_999)
    assert last.fetch_offset + last.fetch_length == 12 + len(body)


def test_a_truncated_file_is_refused_wherever_it_was_cut(xz, empty_stream):
    packed = xz(DATA[:9000], "--block-size=4KiB") + bytes(4) + xz(DATA[:100])
    whole = {0, len(packed)}
    # a cut behind the first stream, or within the padding, leaves a whole file
    first = len(xz(DATA[:9000], "--block-size=4KiB"))
    whole |= {first, first + 1, first + 2, first + 3, first + 4}
    for end in set(range(len(packed))) - whole:
        with pytest.raises(CorruptDataError, match=r"^xz: [^\n]+$"):
            read(packed[:end])
    for begin in range(1, first):
        with pytest.raises(CorruptDataError, match=r"^xz: [^\n]+$"):
            read(packed[begin:])


@pytest.mark.parametrize(
    ("head", "answer"),
    [
        (b"\x1f\x8b\x08", "gzip"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"BZh9", "bzip2"),
        (b"QFI\xfb", "qemu-img convert"),
        (b"\xfd7zXZ\0", "truncated"),
        (b"\n<!DOCTYPE HTML>", "check the URL"),
        (bytes(510) + b"\x55\xaa", "leave --layer xz out"),
        (bytes(512), "leave --layer xz out"),
        (b"anything else", "leave --layer xz out"),
    ],
)
def test_what_is_not_xz_is_named_with_the_remedy(head, answer):
    with pytest.raises(CorruptDataError, match=answer) as caught:
        read(head + b"\1" * (1 << 20))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [0, 1, 4, 11, 23, 31])
def test_a_file_too_short_for_a_stream_is_refused(size):
    with pytest.raises(CorruptDataError, match="too short"):
        read(bytes(size))


def test_a_download_that_never_finished_is_named(monkeypatch):
    monkeypatch.setattr("nbdserve.formats.xzindex._MAX_PADDING", 1 << 20)
    with pytest.raises(CorruptDataError, match="never finished"):
        read(b"\xfd7zXZ\0" + bytes(2 << 20))


def test_an_unknown_check_is_refused_with_the_remedy():
    packed = create_xz_header(5) + bytes(12) + create_xz_index_footer(5, [(12, 1)])
    with pytest.raises(NotSupportedError, match="--check"):
        read(packed)


def test_sizes_that_overflow_are_refused():
    records = [(12, (1 << 63) - 1), (12, 1)]
    packed = create_xz_header(1) + bytes(24) + create_xz_index_footer(1, records)
    with pytest.raises(CorruptDataError, match="8 EiB"):
        read(packed)


def test_blocks_longer_than_the_file_are_refused():
    packed = create_xz_header(1) + bytes(12) + create_xz_index_footer(1, [(1 << 40, 1)])
    with pytest.raises(CorruptDataError, match="beginning is missing"):
        read(packed)


def test_an_empty_stream_must_have_its_header(empty_stream, xz):
    packed = bytearray(xz(DATA[:100]) + empty_stream)
    packed[-len(empty_stream)] ^= 1
    with pytest.raises(CorruptDataError, match="header"):
        read(bytes(packed))


def sealed(body):
    body += bytes(-len(body) % 4)
    return body + struct.pack("<I", crc32(body))


@pytest.mark.parametrize(
    "index",
    [
        sealed(b"\0\x02\x08\x01"),
        sealed(b"\0\x01\x04\x01"),
        sealed(b"\0\x00\x01"),
        sealed(b"\0\x00" + bytes(8)),
        sealed(b"\1\x00"),
        sealed(b"\0" + b"\x80" * 40),
        sealed(b"\0\x01" + b"\xff" * 1000),
        b"\0\0\0\0\0\0\0\0",
        b"",
    ],
)
def test_an_index_that_does_not_add_up_is_refused(index):
    with pytest.raises(CorruptDataError):
        parse_records(index)


def test_too_many_blocks_are_refused_before_they_are_read():
    with pytest.raises(NotSupportedError, match="block-size"):
        parse_records(sealed(b"\0" + bytes(encode_mbi(1 << 40))))


@given(st.binary(max_size=600) | st.binary(max_size=60).map(lambda b: b * 200))
@settings(max_examples=300, deadline=None)
def test_garbage_is_one_line(garbage):
    with pytest.raises(DeviceError, match=r"^xz: [^\n]+$"):
        read(garbage)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_garbage_with_valid_footers_is_one_line_or_consistent(data):
    """Whatever an index claims, the blocks it names lie within the file."""
    number = st.integers(0, 300) | st.integers(0, 1 << 62)
    records = data.draw(st.lists(st.tuples(number.filter(bool), number), max_size=5))
    body = data.draw(st.integers(0, 400))
    packed = create_xz_header(1) + bytes(body * 4) + create_xz_index_footer(1, records)
    try:
        index, _ = read(packed)
    except DeviceError:
        return
    assert index.size == sum(size for _, size in records)
    for number in range(index.blocks):
        block = index.block(number)
        assert 0 <= block.fetch_offset < block.fetch_offset + block.fetch_length <= len(packed)
