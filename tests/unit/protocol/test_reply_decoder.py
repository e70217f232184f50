"""The reply decoder: against the reply encoders, and against servers that break rules."""

import random
import struct

import pytest

from nbdserve.errors import ProtocolError
from nbdserve.extents import Extent, State
from nbdserve.protocol.constants import Command, CommandFlag, WireError
from nbdserve.protocol.messages import ReplyMode, Request
from nbdserve.protocol.replies import replies_for
from nbdserve.protocol.reply_chunks import DataChunk, ErrorChunk, HoleChunk, StatusChunk
from nbdserve.protocol.reply_decoder import Reply, ReplyDecoder

SIMPLE, STRUCTURED, EXTENDED = ReplyMode
MODES = pytest.mark.parametrize("mode", list(ReplyMode))
RICH = pytest.mark.parametrize("mode", [STRUCTURED, EXTENDED])
DONE = 1

READ = Request(0, Command.READ, 0xABCD, 4096, 64)
FLUSH = Request(0, Command.FLUSH, 2, 0, 0)
STATUS = Request(0, Command.BLOCK_STATUS, 3, 0, 1 << 20)
BYTES = bytes(range(64))


def decoder(mode, *requests, into=None):
    made = ReplyDecoder(mode)
    for request in requests:
        made.expect(request, into if request is READ else None)
    return made


def feed(decoder, data, sizes=None):
    """Put bytes where the decoder wants them, at most so many at a time; return the replies."""
    found = []
    while data:
        buffer = decoder.buffer()
        count = min(len(data), len(buffer), next(sizes) if sizes else len(data))
        buffer[:count] = data[:count]
        data = data[count:]
        found += decoder.received(count)
    return found


def chunk(mode, request, flags, type_, payload):
    if mode is EXTENDED:
        head = struct.pack(
            ">IHHQQQ",
            0x6E8A278C,
            flags,
            type_,
            request.cookie,
            request.offset,
            len(payload),
        )
    else:
        head = struct.pack(">IHHQI", 0x668E33EF, flags, type_, request.cookie, len(payload))
    return head + payload


def data(mode, offset, content, flags=0, request=READ):
    return chunk(mode, request, flags, 1, struct.pack(">Q", offset) + content)


def hole(mode, offset, length, flags=0):
    return chunk(mode, READ, flags, 2, struct.pack(">QI", offset, length))


# Against the encoders


@MODES
def test_a_read_is_decoded_into_the_callers_memory(mode):
    memory = bytearray(64)
    (reply,) = feed(
        decoder(mode, READ, into=memoryview(memory)), replies_for(mode).data(READ) + BYTES
    )
    assert memory == BYTES
    assert reply.chunks == (DataChunk(4096, 64),)
    assert reply.error is None


@MODES
def test_a_read_without_memory_gets_its_own(mode):
    (reply,) = feed(decoder(mode, READ), replies_for(mode).data(READ) + BYTES)
    assert reply.data == BYTES


@RICH
def test_a_hole_is_zeroes_in_the_callers_memory(mode):
    memory = bytearray(BYTES)
    (reply,) = feed(decoder(mode, READ, into=memoryview(memory)), replies_for(mode).hole(READ))
    assert memory == bytes(64)
    assert reply.chunks == (HoleChunk(4096, 64),)


@MODES
def test_done_is_success(mode):
    assert feed(decoder(mode, FLUSH), replies_for(mode).done(FLUSH)) == [Reply(FLUSH, (), None)]


@MODES
def test_an_error_is_told_with_what_the_mode_carries(mode):
    (reply,) = feed(decoder(mode, READ), replies_for(mode).error(READ, WireError.EIO, "bad", 4100))
    assert reply.error == ((5, "", None) if mode is SIMPLE else (5, "bad", 4100))


@RICH
def test_extents_are_decoded(mode):
    extents = (Extent(4096, State.DATA), Extent(1 << 30, State.HOLE | State.ZERO))
    (reply,) = feed(decoder(mode, STATUS), replies_for(mode).block_status(STATUS, extents))
    assert reply.chunks == (StatusChunk(1, extents),)


@MODES
def test_a_read_of_no_bytes_succeeds(mode):
    empty = READ._replace(length=0)
    (reply,) = feed(decoder(mode, empty), replies_for(mode).done(empty))
    assert (reply.chunks, reply.data) == ((), None)


def session(mode):
    """Requests, and a stream of replies to them: out of order, with data of all sizes."""
    encode = replies_for(mode)
    lengths = [1, 2, 20, 511, 4096, 9000, 70_000]
    big = [Request(0, Command.READ, n, n << 20, length) for n, length in enumerate(lengths, 10)]
    stream = b""
    for request in reversed(big):
        stream += encode.data(request) + random.Random(request.cookie).randbytes(request.length)
        if request.cookie == 12:
            stream += encode.error(READ, WireError.ENOMEM, "no room")
    stream += encode.done(FLUSH)
    if mode is not SIMPLE:
        stream += encode.block_status(STATUS, [Extent(100, State.ZERO)] * 100)
    return [*big, READ, FLUSH, *([] if mode is SIMPLE else [STATUS])], stream


@MODES
@pytest.mark.parametrize("sizes", ["whole", "bytes", "random 1", "random 2"])
def test_replies_are_the_same_however_the_bytes_arrive(mode, sizes):
    requests, stream = session(mode)
    expected = feed(decoder(mode, *requests), stream)
    assert len(expected) == len(requests)
    rng = random.Random(sizes)
    steps = iter(lambda: 1 if sizes == "bytes" else rng.choice([1, 7, 20, 5000, 70_000]), None)
    found = feed(decoder(mode, *requests), stream, None if sizes == "whole" else steps)
    assert found == expected
    for reply in found:
        if reply.data is not None:
            assert reply.data == random.Random(reply.request.cookie).randbytes(len(reply.data))


def test_what_came_with_the_handshake_is_decoded():
    early = ReplyDecoder(STRUCTURED, trailing=replies_for(STRUCTURED).done(FLUSH))
    early.expect(FLUSH)
    assert early.received(0) == [Reply(FLUSH, (), None)]


# Structured replies of other servers


@RICH
def test_chunks_may_come_in_any_order_and_interleave(mode):
    stream = (
        data(mode, 4112, BYTES[16:])
        + replies_for(mode).done(FLUSH)
        + hole(mode, 4096, 16)
        + chunk(mode, READ, DONE, 0, b"")
    )
    flushed, read = feed(decoder(mode, READ, FLUSH), stream)
    assert flushed.request is FLUSH
    assert read.chunks == (DataChunk(4112, 48), HoleChunk(4096, 16))
    assert read.data == bytes(16) + BYTES[16:]


@RICH
def test_data_before_an_error_is_told(mode):
    error = struct.pack(">IH", 5, 2) + b"no" + struct.pack(">Q", 4104)
    stream = data(mode, 4096, BYTES[:16]) + chunk(mode, READ, DONE, 0x8002, error)
    (reply,) = feed(decoder(mode, READ), stream)
    assert reply.chunks == (DataChunk(4096, 16), ErrorChunk(5, "no", 4104))
    assert reply.error == (5, "no", 4104)


@RICH
def test_an_unknown_error_type_is_an_error(mode):
    unknown = struct.pack(">IH", 99, 1) + b"?" + bytes(20)
    (reply,) = feed(decoder(mode, READ), chunk(mode, READ, DONE, 0x80FF, unknown))
    assert reply.error == (99, "?", None)


def test_a_simple_error_may_answer_anything_but_a_read_in_structured_mode():
    stream = struct.pack(">IIQ", 0x67446698, 22, STATUS.cookie)
    (reply,) = feed(decoder(STRUCTURED, STATUS), stream)
    assert reply.error == (22, "", None)


@RICH
def test_each_metadata_context_has_a_chunk(mode):
    if mode is EXTENDED:
        one, two = (struct.pack(">IIQQ", n, 1, 4096, 1 << 33) for n in (1, 2))
        type_ = 6
    else:
        one, two = (struct.pack(">III", n, 4096, 9) for n in (1, 2))
        type_ = 5
    stream = chunk(mode, STATUS, 0, type_, one) + chunk(mode, STATUS, DONE, type_, two)
    (reply,) = feed(decoder(mode, STATUS), stream)
    assert [chunk.context for chunk in reply.chunks] == [1, 2]
    assert int(reply.chunks[0].extents[0].state) == (1 << 33 if mode is EXTENDED else 9)


# Servers that break rules


def error(code=5, length=0, text=b""):
    return struct.pack(">IH", code, length) + text


S = STRUCTURED
BROKEN = {
    "not a reply": b"HTTP/1.1 400 Bad Request",
    "an unknown cookie": chunk(S, FLUSH._replace(cookie=99), DONE, 0, b""),
    "a simple reply to a read": struct.pack(">IIQ", 0x67446698, 0, READ.cookie),
    "an extended reply": chunk(EXTENDED, READ, DONE, 0, b""),
    "an unknown type": chunk(S, READ, DONE, 9, b""),
    "none with a payload": chunk(S, READ, DONE, 0, b"x"),
    "none that goes on": chunk(S, READ, 0, 0, b""),
    "data before the request": data(S, 4095, BYTES, DONE),
    "data past the request": data(S, 4097, BYTES, DONE),
    "data without bytes": data(S, 4096, b"", DONE),
    "data without an offset": chunk(S, READ, DONE, 1, b"") + bytes(8),
    "a hole past the request": hole(S, 4096, 65, DONE),
    "a hole of nothing": hole(S, 4096, 0, DONE),
    "a hole of the wrong shape": chunk(S, READ, DONE, 2, bytes(11)),
    "data twice": data(S, 4096, BYTES) + data(S, 4100, BYTES[:8], DONE),
    "half the data twice": data(S, 4096, BYTES[:32]) + data(S, 4096, BYTES[:32], DONE),
    "data missing": data(S, 4096, BYTES[:60], DONE),
    "data missing at first": data(S, 4100, BYTES[:60], DONE),
    "no data at all": chunk(S, READ, DONE, 0, b""),
    "data for a flush": data(S, 0, b"x", DONE, FLUSH),
    "extents for a read": chunk(S, READ, DONE, 5, bytes(12)),
    "an extent of nothing": chunk(S, STATUS, DONE, 5, struct.pack(">III", 1, 0, 0)),
    "no extents": chunk(S, STATUS, DONE, 5, bytes(4)),
    "half an extent": chunk(S, STATUS, DONE, 5, bytes(10)),
    "status without extents": chunk(S, STATUS, DONE, 0, b""),
    "extents beyond": chunk(S, STATUS, DONE, 5, struct.pack(">IIIII", 1, 1 << 20, 0, 9, 0)),
    "endless extents": struct.pack(">IHHQI", 0x668E33EF, 1, 5, STATUS.cookie, 4 + 8 * (1 << 22)),
    "an error too short": chunk(S, READ, DONE, 0x8001, bytes(5)),
    "an error text too long": chunk(S, READ, DONE, 0x8001, error(length=2, text=b"x")),
    "an error without its offset": chunk(S, READ, DONE, 0x8002, error(length=8, text=bytes(8))),
    "an error elsewhere": chunk(S, READ, DONE, 0x8002, error() + struct.pack(">Q", 4160)),
    "an endless error": struct.pack(">IHHQI", 0x668E33EF, 1, 0x8001, READ.cookie, 1 << 20),
}


@pytest.mark.parametrize("stream", BROKEN.values(), ids=BROKEN)
def test_a_server_that_breaks_the_rules_is_left(stream):
    with pytest.raises(ProtocolError):
        feed(decoder(STRUCTURED, READ, FLUSH, STATUS), stream)


def test_a_reply_must_be_of_the_mode():
    structured = replies_for(STRUCTURED).done(FLUSH)
    for mode in (SIMPLE, EXTENDED):
        with pytest.raises(ProtocolError, match="magic"):
            feed(decoder(mode, FLUSH), structured)
    with pytest.raises(ProtocolError, match="magic"):
        feed(decoder(EXTENDED, FLUSH), replies_for(SIMPLE).done(FLUSH))


def test_an_extended_reply_must_repeat_the_offset():
    with pytest.raises(ProtocolError, match="offset"):
        feed(decoder(EXTENDED, READ), chunk(EXTENDED, READ._replace(offset=1), DONE, 0, b""))


def test_a_count_of_extents_must_be_true():
    with pytest.raises(ProtocolError, match="count"):
        feed(
            decoder(EXTENDED, STATUS),
            chunk(EXTENDED, STATUS, DONE, 6, struct.pack(">IIQQ", 1, 2, 9, 0)),
        )


@pytest.mark.parametrize("extents", [[(5000, 0)], [(100, 0), (100, 1)]])
def test_req_one_is_answered_with_one_extent_within_the_request(extents):
    one = Request(CommandFlag.REQ_ONE, Command.BLOCK_STATUS, 3, 0, 4096)
    payload = struct.pack(">I", 1) + b"".join(struct.pack(">II", *extent) for extent in extents)
    with pytest.raises(ProtocolError, match="one extent"):
        feed(decoder(STRUCTURED, one), chunk(STRUCTURED, one, DONE, 5, payload))


def test_a_read_with_df_is_answered_with_one_chunk():
    whole = READ._replace(flags=CommandFlag.DF)
    stream = data(STRUCTURED, 4096, BYTES[:32]) + data(STRUCTURED, 4128, BYTES[32:], DONE)
    with pytest.raises(ProtocolError, match="fragmented"):
        feed(decoder(STRUCTURED, whole), stream)


def test_endless_errors_are_not_collected():
    one = chunk(STRUCTURED, READ, 0, 0x8001, error())
    with pytest.raises(ProtocolError, match="chunks"):
        feed(decoder(STRUCTURED, READ), one * (ReplyDecoder.MOST_CHUNKS + 1))


# Misuse by the driver


def test_a_request_is_expected_once_and_with_memory_of_its_length():
    with pytest.raises(RuntimeError, match="under way"):
        decoder(SIMPLE, FLUSH, FLUSH)
    with pytest.raises(ValueError, match="64 bytes"):
        decoder(SIMPLE, READ, into=memoryview(bytearray(63)))
