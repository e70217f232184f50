"""Reply encoders: golden bytes, and what a mode must never send."""

import struct

import pytest

from nbdserve.errors import ProtocolError
from nbdserve.extents import Extent, State
from nbdserve.protocol.constants import Command, WireError
from nbdserve.protocol.messages import ReplyMode, Request
from nbdserve.protocol.replies import replies_for

READ = Request(0, Command.READ, 0x1122334455667788, 0x1000, 0x200)
SIMPLE, STRUCTURED, EXTENDED = map(replies_for, ReplyMode)


def chunk(flags, type_, payload):
    return struct.pack(">IHHQI", 0x668E33EF, flags, type_, READ.cookie, len(payload)) + payload


def extended(flags, type_, payload):
    head = struct.pack(">IHHQQQ", 0x6E8A278C, flags, type_, READ.cookie, READ.offset, len(payload))
    return head + payload


def test_simple_replies_are_a_header_and_nothing_else():
    head = struct.pack(">IIQ", 0x67446698, 0, READ.cookie)
    assert SIMPLE.data(READ) == SIMPLE.done(READ) == head
    error = SIMPLE.error(READ, WireError.EIO, "unread")
    assert error == struct.pack(">IIQ", 0x67446698, 5, READ.cookie)


@pytest.mark.parametrize("impossible", ["hole", "block_status"])
def test_what_a_simple_reply_cannot_carry_is_refused(impossible):
    arguments = ([Extent(1, State.DATA)],) if impossible == "block_status" else ()
    with pytest.raises(ProtocolError):
        getattr(SIMPLE, impossible)(READ, *arguments)
    assert not SIMPLE.can_hole


def test_read_data_announces_its_offset_and_length():
    prefix = struct.pack(">Q", READ.offset)
    body = bytes(READ.length)
    assert STRUCTURED.data(READ) + body == chunk(1, 1, prefix + body)
    assert EXTENDED.data(READ) + body == extended(1, 1, prefix + body)


def test_a_hole_is_an_offset_hole_chunk():
    payload = struct.pack(">QI", READ.offset, READ.length)
    assert STRUCTURED.hole(READ) == chunk(1, 2, payload)
    assert EXTENDED.hole(READ) == extended(1, 2, payload)


def test_done_is_a_none_chunk():
    assert STRUCTURED.done(READ) == chunk(1, 0, b"")
    assert EXTENDED.done(READ) == extended(1, 0, b"")


def test_an_error_chunk_carries_its_text():
    payload = struct.pack(">IH", 5, 3) + b"bad"
    assert STRUCTURED.error(READ, WireError.EIO, "bad") == chunk(1, 0x8001, payload)
    assert EXTENDED.error(READ, WireError.EIO, "bad") == extended(1, 0x8001, payload)


def test_an_error_offset_lies_inside_the_request():
    payload = struct.pack(">IH", 5, 3) + b"bad" + struct.pack(">Q", 0x1008)
    assert STRUCTURED.error(READ, WireError.EIO, "bad", 0x1008) == chunk(1, 0x8002, payload)


def test_a_long_text_is_cut_at_4096_bytes_never_inside_a_character():
    reply = STRUCTURED.error(READ, WireError.EIO, "ü" * 3000 + "\ud800")
    length = struct.unpack_from(">H", reply, 24)[0]
    assert length == 4096
    assert reply[26:].decode() == "ü" * 2048


def test_block_status_is_one_chunk_with_the_context_id_first():
    extents = [Extent(100, State.DATA), Extent(50, State.HOLE | State.ZERO)]
    compact = struct.pack(">IIIII", 1, 100, 0, 50, 3)
    assert STRUCTURED.block_status(READ, extents) == chunk(1, 5, compact)
    wide = struct.pack(">IIQQQQ", 1, 2, 100, 0, 50, 3)
    assert EXTENDED.block_status(READ, extents) == extended(1, 6, wide)


def test_extents_beyond_32_bits_are_cut_in_compact_replies():
    """Mistake (5): CVE-2025-47711/47712."""
    extents = [Extent(10, State.ZERO), Extent(1 << 33, State.DATA), Extent(10, State.ZERO)]
    payload = struct.pack(">IIIII", 1, 10, 2, 0xFFFFFFFF, 0)
    assert STRUCTURED.block_status(READ, extents) == chunk(1, 5, payload)
    assert struct.pack(">QQ", 1 << 33, 0) in EXTENDED.block_status(READ, extents)
