"""Requests of the transmission phase: a decoder for the server, an encoder for clients.

The decoder owns its receive buffer: the driver receives into `buffer()` and hands the count to
`received()`, so a request is parsed where the kernel put it. Payloads of up to `_INLINE` bytes are
cut out of the buffer; a longer one gets memory of its own and is received straight into it.

Bound: it never holds more than `RequestDecoder.MOST_HELD` bytes, whatever the peer sends. A
payload that `accept` refuses is passed over as it arrives.
Source: NBD proto.md, "Request message"; its extension-ext-header branch, "Extended request".
"""

import struct
from collections.abc import Callable
from typing import ClassVar

from nbdserve.errors import ProtocolError
from nbdserve.protocol.constants import (
    EXTENDED_REQUEST_MAGIC,
    MAX_PAYLOAD,
    REQUEST_MAGIC,
    Command,
    CommandFlag,
)
from nbdserve.protocol.messages import Request

__all__ = ["RequestDecoder", "encode_request"]

_COMPACT = struct.Struct(">IHHQQI")
_EXTENDED = struct.Struct(">IHHQQQ")

_BUFFER = 128 << 10  # a batch of 64 requests with some 4 KiB payloads in one recv
_INLINE = 32 << 10  # copying more than this costs more than a second recv

_WRITE = int(Command.WRITE)
_PAYLOAD_LEN = int(CommandFlag.PAYLOAD_LEN)


class RequestDecoder:
    """Decode what a client sends after the handshake.

    Args:
        accept: asked once for each request that carries a payload, before the payload is read:
            True keeps it, False passes over it (the request is then delivered without one, once its
            payload is over: a client still sending it may not expect an answer yet).
        extended: whether extended headers were negotiated.
        trailing: bytes that arrived together with the end of the handshake.
        memory: makes the buffer of a long payload, given its length; what is in it does not matter.
    """

    MOST_HELD: ClassVar[int] = _BUFFER + MAX_PAYLOAD

    def __init__(
        self,
        accept: Callable[[Request], bool],
        *,
        extended: bool,
        trailing: bytes = b"",
        memory: Callable[[int], memoryview] = lambda length: memoryview(bytearray(length)),
    ) -> None:
        self._accept = accept
        self._memory = memory
        self._header = _EXTENDED if extended else _COMPACT
        self._magic = EXTENDED_REQUEST_MAGIC if extended else REQUEST_MAGIC
        self._extended = extended
        self._buffer = memoryview(bytearray(max(_BUFFER, len(trailing))))
        self._buffer[: len(trailing)] = trailing
        self._start = 0
        self._end = len(trailing)
        self._waiting: Request | None = None  # its payload is still arriving
        self._payload: memoryview | None = None  # memory of its own for `_waiting`
        self._filled = 0
        self._refused: Request | None = None  # its payload is passed over
        self._skip = 0

    @property
    def is_idle(self) -> bool:
        """Whether the peer stands between two requests."""
        return self._start == self._end and self._waiting is None and self._refused is None

    @property
    def is_amid_payload(self) -> bool:
        """Whether more of a long payload is still to come, into memory of its own."""
        return self._payload is not None

    def buffer(self) -> memoryview:
        """Return where the next bytes belong; never empty. Valid until `received`."""
        if self._payload is not None:
            return self._payload[self._filled :]
        if self._start == self._end:
            self._start = self._end = 0
        elif len(self._buffer) - self._end < _INLINE:
            held = bytes(self._buffer[self._start : self._end])
            self._buffer[: len(held)] = held
            self._start, self._end = 0, len(held)
        return self._buffer[self._end :]

    def received(self, count: int) -> list[Request]:
        """Take `count` bytes that were put into `buffer()`; return the requests they complete.

        Raises:
            ProtocolError: the peer is not speaking NBD; the connection cannot go on. Requests
                that came before the offence in the same bytes are lost with it.
        """
        requests: list[Request] = []
        if self._payload is not None:
            self._filled += count
            if self._filled < len(self._payload):
                return requests
            assert self._waiting is not None
            requests.append(Request(*self._waiting[:5], self._payload))
            self._waiting = self._payload = None
        else:
            self._end += count
        self._decode(requests)
        return requests

    def _decode(self, requests: list[Request]) -> None:
        # One flat loop: it runs for every request of every client.
        buffer, end, unpack = self._buffer, self._end, self._header.unpack_from
        size, expected = self._header.size, self._magic
        position = self._start
        while True:
            if self._refused is not None:
                step = min(self._skip, end - position)
                position += step
                self._skip -= step
                if self._skip:
                    break
                requests.append(self._refused)
                self._refused = None
            if self._waiting is not None:
                length = self._waiting.length
                if end - position < length:
                    if length > _INLINE:
                        self._give_memory(position, end)
                        position = end
                    break
                payload = memoryview(bytes(buffer[position : position + length]))
                requests.append(Request(*self._waiting[:5], payload))  # 3 times as fast as _replace
                self._waiting = None
                position += length
                continue
            if end - position < size:
                break
            magic, flags, type_, cookie, offset, length = unpack(buffer, position)
            if magic != expected:
                raise ProtocolError(f"bad request magic {magic:#010x}, expected {expected:#010x}")
            position += size
            request = Request(flags, type_, cookie, offset, length)
            if type_ == _WRITE or (self._extended and flags & _PAYLOAD_LEN):
                self._expect_payload(request)
            else:
                requests.append(request)
        self._start, self._end = position, end

    def _expect_payload(self, request: Request) -> None:
        if request.length <= MAX_PAYLOAD and self._accept(request):
            self._waiting = request
            return
        if request.length >> 32:
            # Compact headers cannot say this; passing over it would take hours.
            raise ProtocolError(f"a payload of {request.length} bytes is absurd")
        self._refused = request
        self._skip = request.length

    def _give_memory(self, start: int, end: int) -> None:
        assert self._waiting is not None
        self._payload = self._memory(self._waiting.length)
        self._filled = end - start
        self._payload[: self._filled] = self._buffer[start:end]


def encode_request(request: Request, *, extended: bool) -> bytes:
    """Encode a request header and its payload, as a client sends them."""
    header = _EXTENDED if extended else _COMPACT
    magic = EXTENDED_REQUEST_MAGIC if extended else REQUEST_MAGIC
    packed = header.pack(
        magic, request.flags, request.type, request.cookie, request.offset, request.length
    )
    return packed if request.payload is None else packed + request.payload
