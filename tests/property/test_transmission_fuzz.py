"""Whatever a client sends after the handshake, the server answers or closes that connection."""

import asyncio
import socket
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbdserve.errors import ProtocolError
from nbdserve.protocol.constants import EXTENDED_REQUEST_MAGIC, REQUEST_MAGIC
from nbdserve.protocol.requests import RequestDecoder
from nbdserve.server.connection import Connection
from nbdserve.server.exports import Exports
from nbdserve.server.limits import Limits
from nbdserve.spec import ElementSpec, ExportSpec

SIZE = 1 << 20
BOUNDARIES = st.sampled_from(
    [0, 1, 511, 512, 4096, SIZE - 1, SIZE, SIZE + 1, (1 << 32) - 1, (1 << 63), (1 << 64) - 1]
)
OFFSETS = BOUNDARIES | st.integers(0, (1 << 64) - 1)
LENGTHS = st.sampled_from([0, 1, 512, 4096, SIZE, SIZE + 1]) | st.integers(0, 2 * SIZE)


@st.composite
def requests(draw, *, extended):
    """A request as bytes: real or unreal command and flags, with the payload a WRITE has."""
    type_ = draw(st.integers(0, 9) | st.integers(0, 0xFFFF))
    if type_ == 2:
        type_ = 0  # a DISC would end the session before it has begun
    flags = draw(st.just(0) | st.integers(0, 63) | st.integers(0, 0xFFFF))
    offset, length, cookie = draw(OFFSETS), draw(LENGTHS), draw(st.integers(0, (1 << 64) - 1))
    form, magic = (">IHHQQQ", EXTENDED_REQUEST_MAGIC) if extended else (">IHHQQI", REQUEST_MAGIC)
    header = struct.pack(form, magic, flags, type_, cookie, offset, length)
    has_payload = type_ == 1 or (extended and flags & 32)
    return header + (bytes([draw(st.integers(0, 255))]) * length if has_payload else b"")


def feed(decoder, data):
    """Hand bytes to the decoder, and watch what it holds."""
    found, position = [], 0
    while position < len(data):
        buffer = decoder.buffer()
        assert 0 < len(buffer) <= RequestDecoder.MOST_HELD
        step = min(len(buffer), len(data) - position)
        buffer[:step] = data[position : position + step]
        found += decoder.received(step)
        position += step
    return found


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=2000), st.booleans(), st.booleans())
def test_noise_is_requests_or_a_protocol_error(noise, extended, accept):
    decoder = RequestDecoder(lambda _: accept, extended=extended)
    try:
        feed(decoder, noise)
    except ProtocolError:
        return


async def converse(data, mode):
    """Send bytes to a real connection in transmission and read until it closes."""
    spec = ExportSpec(ElementSpec("memory", (("size", SIZE),)))
    exports = await Exports.open([spec], keep_going=False)
    ours, theirs = socket.socketpair()
    with ours:
        for sock in (ours, theirs):
            sock.setblocking(False)
        connection = Connection(theirs, exports, Limits(), peer="fuzz")
        serving = asyncio.create_task(connection.run())
        loop = asyncio.get_running_loop()
        opened = {"simple": b"", "structured": option(8), "extended": option(11)}[mode]
        hello = struct.pack(">I", 3) + opened + option(7, struct.pack(">IH", 0, 0))

        async def send():
            try:
                await loop.sock_sendall(ours, hello + data)
                ours.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it was dropped while it was still sending

        async def receive():
            count = 0
            try:
                while more := await loop.sock_recv(ours, 1 << 20):
                    count += len(more)
            except OSError:
                pass
            return count

        async with asyncio.timeout(60):
            _, count = await asyncio.gather(send(), receive())
            await serving
    await exports.close()
    return count


def option(number, payload=b""):
    return b"IHAVEOPT" + struct.pack(">II", number, len(payload)) + payload


@pytest.mark.parametrize("mode", ["simple", "structured", "extended"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_requests_are_answered_or_close_the_connection(mode, data):
    wanted = st.lists(requests(extended=mode == "extended"), max_size=8)
    session = b"".join(data.draw(wanted))
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(session)))
        session = session[:at] + data.draw(st.binary(max_size=60)) + session[at:]
    asyncio.run(converse(session, mode))
