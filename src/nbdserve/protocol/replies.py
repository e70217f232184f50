"""Replies of the transmission phase: one encoder a mode, all with the same methods.

An encoder returns what goes out before (or instead of) the data: data itself is never copied into
a reply. Each method ends the request: the one chunk it encodes has DONE set, and is made only when
nothing can fail any more.
Source: NBD proto.md, "Simple reply message", "Structured reply chunk message"; its
extension-ext-header branch, "Extended reply chunk message".
"""

import struct
from collections.abc import Sequence
from typing import Protocol

from nbdserve.errors import ProtocolError
from nbdserve.extents import Extent
from nbdserve.protocol.constants import (
    EXTENDED_REPLY_MAGIC,
    MAX_STRING,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    ChunkFlag,
    ChunkType,
    WireError,
)
from nbdserve.protocol.messages import BASE_ALLOCATION_ID, ReplyMode, Request

__all__ = ["ExtendedReplies", "Replies", "SimpleReplies", "StructuredReplies", "replies_for"]

_DONE = int(ChunkFlag.DONE)
_NONE = int(ChunkType.NONE)
_OFFSET_DATA = int(ChunkType.OFFSET_DATA)
_OFFSET_HOLE = int(ChunkType.OFFSET_HOLE)
_BLOCK_STATUS = int(ChunkType.BLOCK_STATUS)
_BLOCK_STATUS_EXT = int(ChunkType.BLOCK_STATUS_EXT)
_ERROR = int(ChunkType.ERROR)
_ERROR_OFFSET = int(ChunkType.ERROR_OFFSET)

_SIMPLE = struct.Struct(">IIQ")
_CHUNK = struct.Struct(">IHHQI")
_CHUNK_OFFSET = struct.Struct(">IHHQIQ")
_EXTENDED = struct.Struct(">IHHQQQ")
_EXTENDED_OFFSET = struct.Struct(">IHHQQQQ")
_HOLE = struct.Struct(">QI")
_EXTENT = struct.Struct(">II")
_EXTENT_EXT = struct.Struct(">QQ")
_U32_MAX = (1 << 32) - 1


class Replies(Protocol):
    """What every reply encoder does; all return the bytes that go out."""

    can_hole: bool
    """Whether `hole` may be used."""

    def data(self, request: Request) -> bytes:
        """Encode what goes before the `request.length` bytes of a successful READ."""
        ...

    def hole(self, request: Request) -> bytes:
        """Encode the answer to a READ whose bytes are all zero."""
        ...

    def done(self, request: Request) -> bytes:
        """Encode success without data."""
        ...

    def error(
        self, request: Request, error: WireError, text: str, offset: int | None = None
    ) -> bytes:
        """Encode failure; `text` (and `offset`, inside the request) travel where they can."""
        ...

    def block_status(self, request: Request, extents: Sequence[Extent]) -> bytes:
        """Encode the extents of base:allocation; at least one, none of length 0."""
        ...


class SimpleReplies:
    """Simple replies: an error number, and the data if it is 0."""

    can_hole = False

    def data(self, request: Request) -> bytes:
        return _SIMPLE.pack(SIMPLE_REPLY_MAGIC, 0, request.cookie)

    def hole(self, request: Request) -> bytes:
        raise ProtocolError("a simple reply cannot carry a hole")

    def done(self, request: Request) -> bytes:
        return _SIMPLE.pack(SIMPLE_REPLY_MAGIC, 0, request.cookie)

    def error(
        self, request: Request, error: WireError, text: str, offset: int | None = None
    ) -> bytes:
        return _SIMPLE.pack(SIMPLE_REPLY_MAGIC, error, request.cookie)

    def block_status(self, request: Request, extents: Sequence[Extent]) -> bytes:
        raise ProtocolError("a simple reply cannot carry block status")


class StructuredReplies:
    """Structured replies with compact (32-bit) lengths."""

    can_hole = True

    def data(self, request: Request) -> bytes:
        return _CHUNK_OFFSET.pack(
            STRUCTURED_REPLY_MAGIC,
            _DONE,
            _OFFSET_DATA,
            request.cookie,
            request.length + 8,
            request.offset,
        )

    def hole(self, request: Request) -> bytes:
        payload = _HOLE.pack(request.offset, request.length)
        return self._chunk(request, _OFFSET_HOLE, payload)

    def done(self, request: Request) -> bytes:
        return self._chunk(request, _NONE, b"")

    def error(
        self, request: Request, error: WireError, text: str, offset: int | None = None
    ) -> bytes:
        type_, payload = _error_payload(error, text, offset)
        return self._chunk(request, type_, payload)

    def block_status(self, request: Request, extents: Sequence[Extent]) -> bytes:
        parts = [BASE_ALLOCATION_ID.to_bytes(4, "big")]
        # A length over 32 bits is cut: the list then simply stops short, as the spec allows.
        for extent in extents:
            parts.append(_EXTENT.pack(min(extent.length, _U32_MAX), extent.state))
            if extent.length > _U32_MAX:
                break
        return self._chunk(request, _BLOCK_STATUS, b"".join(parts))

    def _chunk(self, request: Request, type_: int, payload: bytes) -> bytes:
        header = _CHUNK.pack(STRUCTURED_REPLY_MAGIC, _DONE, type_, request.cookie, len(payload))
        return header + payload


class ExtendedReplies(StructuredReplies):
    """Structured replies under extended (64-bit) headers; the same chunks, differently framed."""

    def data(self, request: Request) -> bytes:
        return _EXTENDED_OFFSET.pack(
            EXTENDED_REPLY_MAGIC,
            _DONE,
            _OFFSET_DATA,
            request.cookie,
            request.offset,
            request.length + 8,
            request.offset,
        )

    def block_status(self, request: Request, extents: Sequence[Extent]) -> bytes:
        head = struct.pack(">II", BASE_ALLOCATION_ID, len(extents))
        body = b"".join(_EXTENT_EXT.pack(extent.length, extent.state) for extent in extents)
        return self._chunk(request, _BLOCK_STATUS_EXT, head + body)

    def _chunk(self, request: Request, type_: int, payload: bytes) -> bytes:
        header = _EXTENDED.pack(
            EXTENDED_REPLY_MAGIC, _DONE, type_, request.cookie, request.offset, len(payload)
        )
        return header + payload


def replies_for(mode: ReplyMode) -> Replies:
    """Return the encoder of a mode."""
    if mode is ReplyMode.EXTENDED:
        return ExtendedReplies()
    return StructuredReplies() if mode is ReplyMode.STRUCTURED else SimpleReplies()


def _error_payload(error: WireError, text: str, offset: int | None) -> tuple[int, bytes]:
    """Return chunk type and payload; a text is cut at 4096 bytes, never inside a character."""
    told = text.encode(errors="replace")[:MAX_STRING].decode(errors="ignore").encode()
    payload = struct.pack(">IH", error, len(told)) + told
    if offset is None:
        return _ERROR, payload
    return _ERROR_OFFSET, payload + struct.pack(">Q", offset)
