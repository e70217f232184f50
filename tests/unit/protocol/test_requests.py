"""The request decoder: whole, byte by byte, split at random; payloads kept, refused, absurd."""

import random
import struct

import pytest

from nbdserve.errors import ProtocolError
from nbdserve.protocol.constants import MAX_PAYLOAD, Command, CommandFlag
from nbdserve.protocol.messages import Request
from nbdserve.protocol.requests import RequestDecoder, encode_request


def request(type_, offset=0, length=0, flags=0, cookie=7, payload=None):
    payload = None if payload is None else memoryview(payload)
    return Request(flags, type_, cookie, offset, length, payload)


READ = request(Command.READ, 4096, 512)
SMALL = request(Command.WRITE, 10, 5, payload=b"small")
LARGE = request(Command.WRITE, 1 << 40, 100_000, payload=bytes(range(250)) * 400)
EMPTY = request(Command.WRITE, 3, 0, payload=b"")
DISC = request(Command.DISC)
SESSION = [READ, SMALL, READ, LARGE, EMPTY, READ, SMALL, DISC]


def feed(decoder, data, sizes):
    """Hand `data` to the decoder in steps of the given sizes, as recv_into would."""
    found, position = [], 0
    for size in sizes:
        left = size
        while left and position < len(data):
            buffer = decoder.buffer()
            step = min(left, len(buffer), len(data) - position)
            buffer[:step] = data[position : position + step]
            found += decoder.received(step)
            position += step
            left -= step
    assert position == len(data)
    return found


def encoded(requests, *, extended):
    return b"".join(encode_request(r, extended=extended) for r in requests)


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize(
    "sizes",
    [[1 << 30], [1] * (1 << 18), [27, 1, 28, 29, 4096] * 100],
    ids=["whole", "byte by byte", "at odd places"],
)
def test_a_session_is_decoded_however_it_is_split(extended, sizes):
    decoder = RequestDecoder(lambda _: True, extended=extended)
    assert feed(decoder, encoded(SESSION, extended=extended), sizes) == SESSION
    assert decoder.is_idle


@pytest.mark.parametrize("seed", range(20))
def test_a_session_is_decoded_split_at_random(seed):
    source = random.Random(seed)
    sizes = [source.choice((1, 2, 13, 28, 4096, 65536)) for _ in range(300_000)]
    decoder = RequestDecoder(lambda _: True, extended=bool(seed % 2))
    assert feed(decoder, encoded(SESSION, extended=bool(seed % 2)), sizes) == SESSION


def test_bytes_that_came_with_the_handshake_are_decoded_first():
    data = encoded([READ, SMALL], extended=False)
    decoder = RequestDecoder(lambda _: True, extended=False, trailing=data)
    assert decoder.received(0) == [READ, SMALL]


def test_trailing_bytes_longer_than_the_buffer_are_decoded():
    data = encoded([LARGE, LARGE, READ], extended=False)
    decoder = RequestDecoder(lambda _: True, extended=False, trailing=data)
    assert decoder.received(0) == [LARGE, LARGE, READ]


@pytest.mark.parametrize("sizes", [[1 << 30], [7] * 100_000])
def test_payload_of_a_refused_write_is_drained(sizes):
    """Mistake (1): the payload of a refused WRITE is still read, and never held."""
    decoder = RequestDecoder(lambda r: r.offset < 1000, extended=False)
    refused = LARGE._replace(payload=None)
    found = feed(decoder, encoded([LARGE, SMALL, LARGE, READ], extended=False), sizes)
    assert found == [refused, SMALL, refused, READ]


def test_a_payload_over_the_maximum_is_drained_not_held():
    asked = []
    decoder = RequestDecoder(lambda r: asked.append(r) or True, extended=False)
    huge = request(Command.WRITE, 0, MAX_PAYLOAD + 1)
    assert feed(decoder, encode_request(huge, extended=False), [100]) == []
    assert asked == []
    left = huge.length
    while left:
        buffer = decoder.buffer()
        assert len(buffer) <= RequestDecoder.MOST_HELD
        step = min(len(buffer), left)
        left -= step
        assert decoder.received(step) == ([] if left else [huge]), "only once it is over"
    assert feed(decoder, encode_request(READ, extended=False), [100]) == [READ]


def test_a_payload_no_compact_header_could_announce_closes_the_connection():
    absurd = request(Command.WRITE, 0, 1 << 32, flags=CommandFlag.PAYLOAD_LEN)
    decoder = RequestDecoder(lambda _: True, extended=True)
    with pytest.raises(ProtocolError, match="absurd"):
        feed(decoder, encode_request(absurd, extended=True), [100])


def test_an_unknown_command_with_payload_len_has_its_payload_drained():
    unknown = request(99, 0, 5, flags=CommandFlag.PAYLOAD_LEN)
    decoder = RequestDecoder(lambda _: False, extended=True)
    data = encode_request(unknown, extended=True) + b"12345" + encode_request(READ, extended=True)
    assert feed(decoder, data, [1 << 20]) == [unknown, READ]


@pytest.mark.parametrize("extended", [False, True])
def test_bad_request_magic_is_a_protocol_error(extended):
    data = bytearray(encoded([READ, READ], extended=extended))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(ProtocolError, match="bad request magic"):
        feed(RequestDecoder(lambda _: True, extended=extended), data, [1 << 20])


def test_the_largest_payload_is_received_into_memory_of_its_own():
    whole = request(Command.WRITE, 0, MAX_PAYLOAD)
    decoder = RequestDecoder(lambda _: True, extended=False)
    feed(decoder, encode_request(whole, extended=False) + b"x" * 1000, [1 << 20])
    assert len(decoder.buffer()) == MAX_PAYLOAD - 1000


def test_an_extended_request_carries_64_bit_lengths():
    zeroes = request(Command.WRITE_ZEROES, 0, 1 << 40)
    decoder = RequestDecoder(lambda _: True, extended=True)
    assert feed(decoder, encode_request(zeroes, extended=True), [100]) == [zeroes]


def test_golden_bytes_of_both_headers():
    compact = struct.pack(">IHHQQI", 0x25609513, 1, 0, 7, 4096, 512)
    extended = struct.pack(">IHHQQQ", 0x21E41C71, 1, 0, 7, 4096, 512)
    fua = READ._replace(flags=CommandFlag.FUA)
    assert encode_request(fua, extended=False) == compact
    assert encode_request(fua, extended=True) == extended
