"""Replies of the transmission phase, decoded for a client: the mirror of `replies`.

The decoder must know the requests under way (`expect`): a simple reply does not say whether data
follows, and a server that sends bytes for another place must not be believed. Data is received
straight into the memory the caller gave for it. Like `RequestDecoder` it owns its receive buffer:
the driver receives into `buffer()` and hands the count to `received()`.

What the spec lets a client hang up on is a `ProtocolError` here: an unknown cookie, data outside
its request or twice the same, success without all of the data, a chunk of the wrong shape.

Bound: besides the data asked for, it holds at most `MOST_HELD` bytes, and `MOST_CHUNKS` chunks of
a reply.
Source: NBD proto.md, "Simple reply message", "Structured reply types"; its extension-ext-header
branch, "Extended reply chunk message".
"""

import struct
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from nbdserve.errors import ProtocolError
from nbdserve.protocol.constants import (
    EXTENDED_REPLY_MAGIC,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    ChunkFlag,
    ChunkType,
    Command,
    CommandFlag,
)
from nbdserve.protocol.messages import ReplyMode, Request
from nbdserve.protocol.reply_chunks import (
    MOST_STATUS,
    OFFSET,
    Chunk,
    DataChunk,
    ErrorChunk,
    HoleChunk,
    check_length,
    parse_chunk,
)

__all__ = ["Reply", "ReplyDecoder"]

_SIMPLE = struct.Struct(">IIQ")
_CHUNK = struct.Struct(">IHHQI")
_EXTENDED = struct.Struct(">IHHQQQ")

_BUFFER = 64 << 10


class Reply(NamedTuple):
    """The whole reply to a request.

    Attributes:
        request: as it was expected.
        chunks: in the order they came; a simple reply is told as the chunks it amounts to.
        data: of a READ, its memory; complete if there is no error.
    """

    request: Request
    chunks: tuple[Chunk, ...]
    data: memoryview | None

    @property
    def error(self) -> ErrorChunk | None:
        """The first failure, if any."""
        return next((chunk for chunk in self.chunks if isinstance(chunk, ErrorChunk)), None)


@dataclass(slots=True)
class _Expected:
    """A request under way."""

    request: Request
    data: memoryview | None
    chunks: list[Chunk] = field(default_factory=list)

    def target(self, offset: int, length: int) -> memoryview:
        """Return the memory of a part of a READ, which must lie inside it."""
        start = offset - self.request.offset
        if self.request.type != Command.READ or start < 0 or length < 1:
            raise ProtocolError(f"data at offset {offset} that was not asked for")
        if start + length > self.request.length:
            raise ProtocolError(f"data at offset {offset} goes beyond its request")
        if self.data is None:
            self.data = memoryview(bytearray(self.request.length))
        return self.data[start : start + length]

    def check(self) -> None:
        """Check that what came is a whole reply."""
        if any(isinstance(chunk, ErrorChunk) for chunk in self.chunks):
            return
        if self.request.type == Command.READ:
            self._check_cover()
        elif self.request.type == Command.BLOCK_STATUS and not self.chunks:
            raise ProtocolError("block status without any extents")

    def _check_cover(self) -> None:
        content = sorted(c for c in self.chunks if isinstance(c, DataChunk | HoleChunk))
        position = self.request.offset
        for offset, length in content:
            if offset != position:
                what = "twice" if offset < position else "never"
                raise ProtocolError(f"a READ succeeded with data at {offset} sent {what}")
            position += length
        if position != self.request.offset + self.request.length:
            raise ProtocolError(f"a READ succeeded without its data from {position} on")
        if self.request.flags & CommandFlag.DF and len(content) > 1:
            raise ProtocolError("a READ that must not be fragmented was")


class ReplyDecoder:
    """Decode what a server sends after the handshake.

    Args:
        mode: what was negotiated.
        trailing: bytes that arrived together with the end of the handshake.
    """

    MOST_HELD: ClassVar[int] = _EXTENDED.size + MOST_STATUS + _BUFFER
    MOST_CHUNKS: ClassVar[int] = 1 << 16

    def __init__(self, mode: ReplyMode, *, trailing: bytes = b"") -> None:
        self._mode = mode
        self._expected: dict[int, _Expected] = {}
        self._held = bytearray(trailing)  # not decoded yet
        self._buffer = memoryview(bytearray(_BUFFER))
        self._target: memoryview | None = None  # data still to come goes here
        self._after: tuple[_Expected, bool] | None = None  # whose data it is; whether it ends there

    @property
    def pending(self) -> int:
        """Requests whose reply has not come."""
        return len(self._expected)

    def expect(self, request: Request, into: memoryview | None = None) -> None:
        """Announce a request before it is sent.

        Args:
            request: its cookie must not be under way.
            into: memory for the data of a READ, `request.length` bytes; the decoder's own if None.
        """
        if request.cookie in self._expected:
            raise RuntimeError(f"cookie {request.cookie:#x} is under way already")
        if into is not None and len(into) != request.length:
            raise ValueError(f"{len(into)} bytes of memory for {request.length} bytes of data")
        self._expected[request.cookie] = _Expected(request, into)

    def buffer(self) -> memoryview:
        """Return where the next bytes belong; never empty. Valid until `received`."""
        return self._buffer if self._target is None else self._target

    def received(self, count: int) -> list[Reply]:
        """Take `count` bytes that were put into `buffer()`; return the replies they complete.

        `received(0)` decodes what came with the handshake.

        Raises:
            ProtocolError: the connection cannot go on; replies in the same bytes are lost with it.
        """
        replies: list[Reply] = []
        if self._target is None:
            self._held += self._buffer[:count]
        else:
            self._advance(count, replies)
        while self._target is None and self._decode(replies):
            pass
        return replies

    def _advance(self, count: int, replies: list[Reply]) -> None:
        """Account for data that was put in its place."""
        assert self._target is not None
        assert self._after is not None
        self._target = self._target[count:]
        if len(self._target) == 0:
            (expected, done), self._target, self._after = self._after, None, None
            if done:
                self._finish(expected, replies)

    def _decode(self, replies: list[Reply]) -> bool:
        """Decode one message; False if it has not arrived."""
        if len(self._held) < 4:
            return False
        magic = int.from_bytes(self._held[:4], "big")
        if magic == SIMPLE_REPLY_MAGIC and self._mode is not ReplyMode.EXTENDED:
            return self._decode_simple(replies)
        if magic == STRUCTURED_REPLY_MAGIC and self._mode is ReplyMode.STRUCTURED:
            return self._decode_chunk(_CHUNK, replies)
        if magic == EXTENDED_REPLY_MAGIC and self._mode is ReplyMode.EXTENDED:
            return self._decode_chunk(_EXTENDED, replies)
        raise ProtocolError(f"reply magic {magic:#010x} in mode {self._mode.name.lower()}")

    def _decode_simple(self, replies: list[Reply]) -> bool:
        if len(self._held) < _SIMPLE.size:
            return False
        _, error, cookie = _SIMPLE.unpack(self._take(_SIMPLE.size))
        expected = self._find(cookie)
        request = expected.request
        is_read = request.type == Command.READ
        if self._mode is ReplyMode.STRUCTURED and is_read:
            raise ProtocolError("a simple reply to a READ, in spite of structured replies")
        if error:
            expected.chunks.append(ErrorChunk(error, "", None))
        elif is_read and request.length:
            self._place(expected, request.offset, request.length, replies, done=True)
            return True
        self._finish(expected, replies)
        return True

    def _decode_chunk(self, form: struct.Struct, replies: list[Reply]) -> bool:
        if len(self._held) < form.size:
            return False
        _, flags, type_, cookie, *offset, length = form.unpack_from(self._held)
        expected = self._find(cookie)
        if offset and offset[0] != expected.request.offset:
            raise ProtocolError(f"a reply for offset {offset[0]}, not {expected.request.offset}")
        done = bool(flags & ChunkFlag.DONE)
        if type_ == ChunkType.OFFSET_DATA:
            return self._decode_data(form.size, length, expected, replies, done=done)
        check_length(type_, length)
        if len(self._held) < form.size + length:
            return False
        del self._held[: form.size]
        payload = self._take(length)
        if type_ == ChunkType.NONE:
            if not done:
                raise ProtocolError("a NONE chunk that is not the last")
        else:
            chunk = parse_chunk(type_, payload, expected.request)
            if isinstance(chunk, HoleChunk):
                expected.target(*chunk)[:] = bytes(chunk.length)
            self._keep(expected, chunk)
        if done:
            self._finish(expected, replies)
        return True

    def _decode_data(
        self, head: int, length: int, expected: _Expected, replies: list[Reply], *, done: bool
    ) -> bool:
        if len(self._held) < head + OFFSET.size:
            return False
        (offset,) = OFFSET.unpack_from(self._held, head)
        del self._held[: head + OFFSET.size]
        self._place(expected, offset, length - OFFSET.size, replies, done=done)
        return True

    def _place(
        self, expected: _Expected, offset: int, length: int, replies: list[Reply], *, done: bool
    ) -> None:
        """Put what is here of some data in its place, and await the rest there."""
        target = expected.target(offset, length)
        self._keep(expected, DataChunk(offset, length))
        here = min(length, len(self._held))
        target[:here] = self._held[:here]
        del self._held[:here]
        self._target, self._after = target, (expected, done)
        self._advance(here, replies)

    def _keep(self, expected: _Expected, chunk: Chunk) -> None:
        if len(expected.chunks) >= self.MOST_CHUNKS:
            raise ProtocolError(f"a reply in more than {self.MOST_CHUNKS} chunks")
        expected.chunks.append(chunk)

    def _find(self, cookie: int) -> _Expected:
        expected = self._expected.get(cookie)
        if expected is None:
            raise ProtocolError(f"a reply to a request that was not sent, cookie {cookie:#x}")
        return expected

    def _finish(self, expected: _Expected, replies: list[Reply]) -> None:
        expected.check()
        del self._expected[expected.request.cookie]
        replies.append(Reply(expected.request, tuple(expected.chunks), expected.data))

    def _take(self, count: int) -> bytes:
        data = bytes(self._held[:count])
        del self._held[:count]
        return data
