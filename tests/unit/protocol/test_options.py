"""Options and their replies: golden bytes, used both ways."""

import pytest

from answering import facts
from nbdserve.errors import ProtocolError
from nbdserve.protocol.constants import HandshakeFlag, OptionReply, TransmissionFlag
from nbdserve.protocol.option_replies import (
    BlockSizes,
    Listing,
    MetaContext,
    encode_block_sizes,
    encode_chosen,
    encode_context,
    encode_error,
    encode_greeting,
    encode_infos,
    encode_listing,
    encode_reply,
    parse_block_sizes,
    parse_context,
    parse_export,
    parse_greeting,
    parse_listing,
)
from nbdserve.protocol.options import (
    InfoRequest,
    MetaRequest,
    OptionError,
    encode_info_request,
    encode_meta_request,
    encode_option,
    parse_info_request,
    parse_meta_request,
    parse_name,
)

DISK = facts("disk", description="a disk", minimum=512, preferred=4096, maximum=1 << 20)

BOTH_WAYS = [
    (encode_info_request, parse_info_request, InfoRequest(""), "00000000 0000"),
    (
        encode_info_request,
        parse_info_request,
        InfoRequest("dü", (3, 0xFFFF)),
        "00000003 64c3bc 0002 0003 ffff",
    ),
    (encode_meta_request, parse_meta_request, MetaRequest("d"), "00000001 64 00000000"),
    (
        encode_meta_request,
        parse_meta_request,
        MetaRequest("d", ("a:", "")),
        "00000001 64 00000002 00000002 613a 00000000",
    ),
    (encode_listing, parse_listing, Listing("d", "ü!"), "00000001 64 c3bc21"),
    (encode_listing, parse_listing, Listing("", ""), "00000000"),
    (encode_context, parse_context, MetaContext(7, "a:b"), "00000007 613a62"),
    (encode_greeting, parse_greeting, HandshakeFlag(3), b"NBDMAGICIHAVEOPT".hex() + "0003"),
    (encode_greeting, parse_greeting, HandshakeFlag(0), b"NBDMAGICIHAVEOPT".hex() + "0000"),
]


@pytest.mark.parametrize(("encode", "parse", "value", "wire"), BOTH_WAYS)
def test_what_one_half_encodes_the_other_parses(encode, parse, value, wire):
    assert encode(value) == bytes.fromhex(wire)
    assert parse(bytes.fromhex(wire)) == value


def test_an_option_has_a_header_of_16_bytes():
    assert encode_option(7, b"xyz") == bytes.fromhex("49484156454f5054 00000007 00000003 78797a")


def test_a_reply_has_a_header_of_20_bytes():
    expected = bytes.fromhex("0003e889045565a9 00000007 80000006 00000002 6e6f")
    assert encode_error(7, OptionReply.ERR_UNKNOWN, "no") == expected
    assert encode_reply(7, OptionReply.ERR_UNKNOWN, b"no") == expected


def test_infos_are_export_name_description_and_block_size():
    export, name, description, sizes = encode_infos(DISK, {1, 2, 3})
    assert export == bytes.fromhex("0000 0000123456789000 0005")
    assert parse_export(export) == (DISK.size, DISK.flags)
    assert (name, description) == (b"\0\x01disk", b"\0\x02a disk")
    assert sizes == encode_block_sizes(DISK) == bytes.fromhex("0003 00000200 00001000 00100000")
    assert parse_block_sizes(sizes) == BlockSizes(512, 4096, 1 << 20)


def test_the_answer_to_export_name_has_no_header():
    assert encode_chosen(DISK, zeroes=False) == bytes.fromhex("0000123456789000 0005")
    assert encode_chosen(DISK, zeroes=True) == bytes.fromhex("0000123456789000 0005") + bytes(124)


def test_transmission_flags_not_known_here_are_dropped():
    _, flags = parse_export(bytes.fromhex("0000 0000000000000000 e003"))
    assert flags == TransmissionFlag.HAS_FLAGS | TransmissionFlag.READ_ONLY


def test_handshake_flags_not_known_here_are_dropped():
    assert parse_greeting(b"NBDMAGICIHAVEOPT\xff\xff") == HandshakeFlag(3)


@pytest.mark.parametrize(
    ("parse", "wire"),
    [
        (parse_listing, b""),
        (parse_listing, b"\0\0\0\x02a"),
        (parse_listing, b"\0\0\0\x01\xff"),
        (parse_context, b"\0\0\0"),
        (parse_context, b"\0\0\0\x01a\0b"),
        (parse_export, b"\0\0"),
        (parse_export, bytes(13)),
        (parse_block_sizes, bytes(13)),
        (parse_block_sizes, bytes(14)),
        (parse_block_sizes, bytes.fromhex("0003 00000003 00001000 00100000")),
        (parse_block_sizes, bytes.fromhex("0003 00020000 00020000 00100000")),
        (parse_greeting, b"SSH-2.0-OpenSSH_9."),
        (parse_greeting, b"NBDMAGIC\0\x00\x42\x02\x81\x86\x12\x53\0\0"),
    ],
)
def test_a_server_that_makes_no_sense_is_a_protocol_error(parse, wire):
    with pytest.raises(ProtocolError):
        parse(wire)


def test_a_description_need_not_be_utf_8():
    assert parse_listing(b"\0\0\0\x01d\xff").description == "\ufffd"


@pytest.mark.parametrize("wire", [b"\0", b"\xc3", b"x" * 4097])
def test_a_bad_string_is_an_invalid_option(wire):
    with pytest.raises(OptionError) as caught:
        parse_name(wire)
    assert caught.value.reply == OptionReply.ERR_INVALID
    assert len(caught.value.text) < 100


@pytest.mark.parametrize(
    ("parse", "wire"), [(parse, wire) for _, parse, value, wire in BOTH_WAYS[:4]]
)
def test_no_part_of_a_request_is_a_request(parse, wire):
    whole = bytes.fromhex(wire)
    for broken in [*(whole[:n] for n in range(len(whole))), whole + b"\0"]:
        with pytest.raises(OptionError):
            parse(broken)
