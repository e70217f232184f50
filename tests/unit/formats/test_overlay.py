import random
import struct
from zlib import crc32

import pytest

from nbdserve.errors import CorruptDataError
from nbdserve.formats.overlay import (
    BLOCK,
    CLUSTERS_PER_PAGE,
    EMPTY_PAGE_CRC,
    Header,
    Root,
    difference,
    encode_header,
    encode_page,
    encode_root,
    layout_of,
    parse_header,
    parse_page,
    parse_root,
)

HEADER = Header(65536, 1 << 30, bytes(range(32)), "etag abc")


def flipped(block, at):
    return block[:at] + bytes((block[at] ^ 1,)) + block[at + 1 :]


@pytest.mark.parametrize(
    "header",
    [HEADER, Header(4096, 0, bytes(32)), Header(64 << 20, (1 << 63) - 1, b"\xff" * 32, "ä")],
)
def test_a_header_is_read_back(header):
    block = encode_header(header)
    assert len(block) == BLOCK
    assert parse_header(block) == header


def test_the_header_on_disk_is_this_one():
    block = encode_header(HEADER)
    assert block[:8] == b"nbdscow\n"
    assert struct.unpack_from(">IIQ", block, 8) == (1, 65536, 1 << 30)
    assert block[24:56] == bytes(range(32))
    assert block[56:66] == b"\x00\x08etag abc"
    assert not any(block[66:-4])
    assert block[-4:] == struct.pack(">I", crc32(block[:-4]))


def test_an_identity_too_long_is_cut_between_characters():
    identity = parse_header(encode_header(Header(4096, 1, bytes(32), "ä" * 5000))).identity
    assert len(identity.encode()) < BLOCK
    assert set(identity) == {"ä"}


@pytest.mark.parametrize("at", [9, 30, 60, 2000, BLOCK - 1])
def test_a_damaged_header_is_refused(at):
    with pytest.raises(CorruptDataError, match="its header is damaged"):
        parse_header(flipped(encode_header(HEADER), at))


@pytest.mark.parametrize("block", [b"", bytes(BLOCK), b"QFI\xfb" + bytes(BLOCK), b"nbdscow\n"])
def test_what_is_no_overlay_is_refused(block):
    with pytest.raises(CorruptDataError, match="is not an overlay of nbdserve"):
        parse_header(block)


def test_a_later_version_is_refused_by_its_number():
    body = bytearray(encode_header(HEADER)[:-4])
    body[11] = 2
    with pytest.raises(CorruptDataError, match="has format version 2, this nbdserve reads 1"):
        parse_header(bytes(body) + struct.pack(">I", crc32(body)))


@pytest.mark.parametrize(
    ("size", "cluster", "pages"),
    [
        (0, 4096, 0),
        (1, 4096, 1),
        (CLUSTERS_PER_PAGE * 4096, 4096, 1),
        (CLUSTERS_PER_PAGE * 4096 + 1, 4096, 2),
        (1 << 40, 65536, 1024),
    ],
)
def test_the_parts_of_a_file_lie_one_after_the_other(size, cluster, pages):
    layout = layout_of(size, cluster)
    assert layout.pages == pages
    assert layout.root_at(0) == BLOCK
    assert layout.root_at(1) == BLOCK + layout.root_length
    assert layout.map_start == layout.root_at(1) + layout.root_length
    assert layout.page_at(pages, 0) <= layout.data_start
    assert layout.data_start % cluster == 0
    assert layout.end == layout.data_start + size


def random_root(layout, generation=7):
    rng = random.Random(layout.pages)
    slots = bytes(rng.randrange(2) for _ in range(layout.pages))
    return Root(generation, slots, tuple(rng.randrange(1 << 32) for _ in range(layout.pages)))


@pytest.mark.parametrize("pages", [0, 1, 7, 8, 9, 1024, 5000])
def test_a_root_is_read_back(pages):
    layout = layout_of(pages * CLUSTERS_PER_PAGE * 4096, 4096)
    assert layout.pages == pages
    root = random_root(layout)
    block = encode_root(root, layout)
    assert len(block) == layout.root_length
    assert parse_root(block, layout) == root


@pytest.mark.parametrize("at", [0, 5, 15, 17, 30, 4000, BLOCK - 1])
def test_a_root_with_any_byte_changed_is_not_whole(at):
    layout = layout_of(1 << 30, 65536)
    assert parse_root(flipped(encode_root(random_root(layout), layout), at), layout) is None


@pytest.mark.parametrize("length", [0, 512, BLOCK - 1])
def test_a_root_cut_short_is_not_whole(length):
    layout = layout_of(1 << 30, 65536)
    block = encode_root(random_root(layout), layout)
    assert parse_root(block[:length], layout) is None
    assert parse_root(block[:length].ljust(BLOCK, b"\0"), layout) is None


def test_a_root_of_another_size_of_map_is_not_whole():
    layout, other = (
        layout_of(CLUSTERS_PER_PAGE << 12, 4096),
        layout_of(CLUSTERS_PER_PAGE << 13, 4096),
    )
    assert parse_root(encode_root(random_root(layout), layout), other) is None


@pytest.mark.parametrize("count", [0, 1, 5, 4096, CLUSTERS_PER_PAGE])
def test_a_page_is_read_back(count):
    rng = random.Random(count)
    states = bytes(rng.randrange(3) for _ in range(count))
    block = encode_page(states)
    assert len(block) == BLOCK
    assert parse_page(block, crc32(block)) == states.ljust(CLUSTERS_PER_PAGE, b"\0")


def test_four_clusters_share_a_byte_the_first_in_its_lowest_bits():
    assert encode_page(bytes([1, 2, 0, 1]))[:2] == bytes([0b01_00_10_01, 0])


def test_an_empty_page_has_the_checksum_that_stands_for_it():
    assert crc32(encode_page(bytes(100))) == EMPTY_PAGE_CRC


def test_a_page_that_fails_its_checksum_is_refused():
    block = encode_page(bytes([1, 2]))
    with pytest.raises(CorruptDataError, match="a page of its map is damaged"):
        parse_page(flipped(block, 100), crc32(block))


def test_a_page_with_an_unknown_state_is_refused():
    block = b"\3".ljust(BLOCK, b"\0")
    with pytest.raises(CorruptDataError, match="unknown state"):
        parse_page(block, crc32(block))


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (HEADER, None),
        (Header(65536, 1 << 30, bytes(range(32)), ""), None),
        (
            Header(65536, 1 << 20, bytes(range(32)), "etag abc"),
            "was made over a base of 1073741824 bytes, this one has 1048576",
        ),
        (
            Header(65536, 1 << 30, bytes(32), "etag def"),
            "was made over 'etag abc', this base is 'etag def'",
        ),
        (
            Header(65536, 1 << 30, bytes(32), "etag abc"),
            (
                "was made over a base with other contents "
                "(fingerprint 000102030405, this one 000000000000)"
            ),
        ),
        (
            Header(4096, 1 << 30, bytes(range(32)), "etag abc"),
            "has clusters of 65536 bytes, not 4096",
        ),
    ],
)
def test_a_difference_is_told_with_both_values(wanted, text):
    assert difference(HEADER, wanted) == text
