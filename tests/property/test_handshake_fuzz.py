"""Whatever a peer sends, the codec goes on or raises ProtocolError, and holds little."""

import contextlib
import random
import struct

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from answering import Answering, facts
from nbdserve.errors import ProtocolError
from nbdserve.protocol.client_handshake import ClientHandshake, Connected, Greeted
from nbdserve.protocol.constants import Command, HandshakeFlag, Option
from nbdserve.protocol.handshake import NEED_DATA, ServerHandshake
from nbdserve.protocol.handshake_events import NeedData
from nbdserve.protocol.messages import ReplyMode, Request
from nbdserve.protocol.options import (
    InfoRequest,
    MetaRequest,
    encode_info_request,
    encode_meta_request,
    encode_option,
)
from nbdserve.protocol.reply_decoder import ReplyDecoder

NAMES = st.sampled_from(["", "disk", "missing", "ü" * 100])
QUERIES = st.lists(st.sampled_from(["base:", "base:allocation", "x-y:z", ""]), max_size=3)
INFOS = st.lists(st.integers(0, 5), max_size=4)
OPTIONS = st.one_of(
    st.builds(encode_option, st.sampled_from([3, 5, 8, 11, 99]), st.binary(max_size=3)),
    st.builds(
        lambda n, name, asked: encode_option(
            n, encode_info_request(InfoRequest(name, tuple(asked)))
        ),
        st.sampled_from([Option.INFO, Option.INFO, Option.GO]),
        NAMES,
        INFOS,
    ),
    st.builds(
        lambda n, name, q: encode_option(n, encode_meta_request(MetaRequest(name, tuple(q)))),
        st.sampled_from([Option.LIST_META_CONTEXT, Option.SET_META_CONTEXT]),
        NAMES,
        QUERIES,
    ),
    st.builds(encode_option, st.sampled_from([1, 2]), st.sampled_from([b"", b"disk"])),
    st.builds(encode_option, st.integers(0, 12), st.sampled_from([bytes(65_536), bytes(70_000)])),
)
OFFERS = st.fixed_dictionaries(
    {
        "offer_tls": st.booleans(),
        "require_tls": st.booleans(),
        "extended": st.booleans(),
        "structured": st.booleans(),
    }
)


@st.composite
def sessions(draw):
    """A client's bytes: flags, options, something after."""
    flags = struct.pack(">I", draw(st.sampled_from([0, 1, 3, 3, 3])))
    return flags + b"".join(draw(st.lists(OPTIONS, max_size=8))) + draw(st.binary(max_size=20))


@st.composite
def mutated(draw, valid):
    """Valid bytes with a few of them changed, cut out or put in."""
    data = bytearray(draw(valid))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, min(len(data), 600)))
        new = draw(st.binary(max_size=6))
        data[at : at + draw(st.integers(0, 6))] = new
    return bytes(data)


def cut(data, seed):
    """Cut bytes at random."""
    rng, at, parts = random.Random(seed), 0, []
    while at < len(data):
        size = rng.choice([1, 3, 16, 100, 4096, 16384])
        parts.append(data[at : at + size])
        at += size
    return parts


def run(server, parts):
    """Feed a server until it is over; return how it ended."""
    received = 0
    told = sum(100 + len(e.name) + len(e.description) for e in server.exports.values())
    try:
        for part in parts:
            received += len(part)
            server.feed(part)
            answered = len(server.events) * (told + 500)
            assert len(server.sent) <= ServerHandshake.MOST_ECHOED * received + answered
            if server.handshake.next_event() is NEED_DATA:
                assert server.handshake._reader.held <= ServerHandshake.MOST_HELD
    except ProtocolError as exc:
        assert server.handshake._reader.held == 0
        return str(exc)
    return None


@settings(max_examples=300, deadline=None)
@given(st.one_of(sessions(), mutated(sessions()), st.binary(max_size=500)), st.integers(), OFFERS)
def test_a_server_goes_on_or_raises_protocol_error_and_holds_little(data, seed, offers):
    run(Answering(facts(), facts("disk", minimum=512), **offers), cut(data, seed))


@settings(max_examples=60, deadline=None)
@given(sessions(), st.integers())
def test_a_server_does_the_same_however_the_bytes_arrive(data, seed):
    # Without TLS: bytes before it are discarded by when they came, which is the point.
    assume(len(data) < 5000)
    outcomes = []
    for parts in ([data], [data[n : n + 1] for n in range(len(data))], cut(data, seed)):
        server = Answering()
        outcomes.append((run(server, parts), server.events, server.sent))
    assert outcomes[0] == outcomes[1] == outcomes[2]


def ask_everything(client):
    """Ask one of each option."""
    client.ask(Option.EXTENDED_HEADERS)
    client.ask(Option.STRUCTURED_REPLY)
    client.ask(Option.LIST)
    client.ask_meta(Option.LIST_META_CONTEXT, MetaRequest("disk"))
    client.ask_meta(Option.SET_META_CONTEXT, MetaRequest("disk", ("base:allocation",)))
    client.ask_info(Option.INFO, InfoRequest("missing"))
    client.ask_info(Option.GO, InfoRequest("disk", (1, 2, 3)))


def answers_to_everything():
    """Return what a server sends to a client that asks everything."""
    server, client = Answering(), ClientHandshake()
    client.receive_data(server.greeting)
    client.next_event()
    ask_everything(client)
    server.feed(client.data_to_send())
    return server.greeting + server.sent


@settings(max_examples=300, deadline=None)
@given(mutated(st.just(answers_to_everything())), st.integers())
def test_a_client_goes_on_or_raises_protocol_error(stream, seed):
    client = ClientHandshake()
    with contextlib.suppress(ProtocolError):
        for part in cut(stream, seed):
            client.receive_data(part)
            while not isinstance(event := client.next_event(), NeedData | Connected):
                if not isinstance(event, Greeted):
                    continue
                if event.flags & HandshakeFlag.FIXED_NEWSTYLE:
                    ask_everything(client)
                else:
                    client.choose("disk")
            assert len(client._buffer) <= ClientHandshake.MOST_HELD


CHUNKS = st.builds(
    lambda flags, type_, cookie, offset, payload: (
        struct.pack(">IHHQI", 0x668E33EF, flags, type_, cookie, len(payload) + 8)
        + struct.pack(">Q", offset)
        + payload
    ),
    st.integers(0, 1),
    st.sampled_from([0, 1, 1, 2, 5, 6, 0x8001, 0x8002]),
    st.integers(1, 4),
    st.integers(0, 120),
    st.binary(max_size=60),
)


@pytest.mark.parametrize("mode", list(ReplyMode))
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_reply_decoder_goes_on_or_raises_protocol_error(mode, data):
    chunks = st.lists(CHUNKS, max_size=6).map(b"".join)
    stream = data.draw(st.one_of(chunks, mutated(chunks), st.binary(max_size=200)))
    decoder = ReplyDecoder(mode)
    memory = bytearray(100)
    guard = memoryview(memory)
    decoder.expect(Request(0, Command.READ, 1, 20, 60), guard[20:80])
    decoder.expect(Request(0, Command.WRITE, 2, 0, 100))
    decoder.expect(Request(0, Command.BLOCK_STATUS, 3, 0, 100))
    with contextlib.suppress(ProtocolError):
        for part in cut(stream, data.draw(st.integers())):
            left = part
            while left:
                buffer = decoder.buffer()
                count = min(len(left), len(buffer))
                buffer[:count] = left[:count]
                left = left[count:]
                decoder.received(count)
                assert len(decoder._held) <= ReplyDecoder.MOST_HELD
    assert memory[:20] == bytes(20)
    assert memory[80:] == bytes(20)
