"""The chunks of a reply as a client sees them: parsed from their payloads, pure.

Source: NBD proto.md, "Structured reply types"; its extension-ext-header branch.
"""

import struct
from typing import Final, NamedTuple

from nbdserve.errors import ProtocolError
from nbdserve.extents import Extent, State
from nbdserve.protocol.constants import MAX_STRING, ChunkType, Command, CommandFlag, WireError
from nbdserve.protocol.messages import Request

__all__ = [
    "MOST_STATUS",
    "OFFSET",
    "Chunk",
    "DataChunk",
    "ErrorChunk",
    "HoleChunk",
    "StatusChunk",
    "check_length",
    "parse_chunk",
]

OFFSET: Final = struct.Struct(">Q")
"""What precedes the data of an OFFSET_DATA chunk."""

MOST_STATUS: Final = 8 + 16 * (1 << 20)
"""Longest payload of a block status chunk: "SHOULD NOT send more than 2^20 extents"."""

_HOLE = struct.Struct(">QI")
_ERROR = struct.Struct(">IH")
_EXTENT = struct.Struct(">II")
_EXTENT_EXT = struct.Struct(">QQ")
_MOST_ERROR = _ERROR.size + MAX_STRING + OFFSET.size + 1024  # and room for fields to come


class DataChunk(NamedTuple):
    """Bytes of the export, which are in the request's memory."""

    offset: int
    length: int


class HoleChunk(NamedTuple):
    """Zeroes of the export, which are in the request's memory."""

    offset: int
    length: int


class StatusChunk(NamedTuple):
    """Extents of one metadata context; the states of an unknown context are raw numbers."""

    context: int
    extents: tuple[Extent, ...]


class ErrorChunk(NamedTuple):
    """A failure: the wire's error number, the server's words, and the place if it was told."""

    error: int
    text: str
    offset: int | None


Chunk = DataChunk | HoleChunk | StatusChunk | ErrorChunk


def check_length(type_: int, length: int) -> None:
    """Check the length of any chunk but OFFSET_DATA, before its payload is held.

    Raises:
        ProtocolError: wrong for its type, or the type is unknown.
    """
    if type_ == ChunkType.NONE:
        right = length == 0
    elif type_ == ChunkType.OFFSET_HOLE:
        right = length == _HOLE.size
    elif type_ == ChunkType.BLOCK_STATUS:
        right = 4 < length <= MOST_STATUS and length % _EXTENT.size == 4
    elif type_ == ChunkType.BLOCK_STATUS_EXT:
        right = 8 < length <= MOST_STATUS and length % _EXTENT_EXT.size == 8
    elif type_ >> 15:
        least = _ERROR.size + (OFFSET.size if type_ == ChunkType.ERROR_OFFSET else 0)
        right = least <= length <= _MOST_ERROR
    else:
        raise ProtocolError(f"unknown chunk type {type_:#06x}")
    if not right:
        raise ProtocolError(f"a chunk of type {type_:#06x} with {length} bytes")


def parse_chunk(type_: int, payload: bytes, request: Request) -> Chunk:
    """Parse the payload of any chunk but NONE and OFFSET_DATA, whose length was checked.

    Raises:
        ProtocolError: it does not belong to this request, or makes no sense.
    """
    if type_ == ChunkType.OFFSET_HOLE:
        return HoleChunk(*_HOLE.unpack(payload))
    if type_ in (ChunkType.BLOCK_STATUS, ChunkType.BLOCK_STATUS_EXT):
        if request.type != Command.BLOCK_STATUS:
            raise ProtocolError("extents that were not asked for")
        return _parse_status(type_, payload, request)
    return _parse_error(type_, payload, request)


def _parse_status(type_: int, payload: bytes, request: Request) -> StatusChunk:
    context = int.from_bytes(payload[:4], "big")
    if type_ == ChunkType.BLOCK_STATUS:
        pairs = list(_EXTENT.iter_unpack(payload[4:]))
    else:
        pairs = list(_EXTENT_EXT.iter_unpack(payload[8:]))
        if int.from_bytes(payload[4:8], "big") != len(pairs):
            raise ProtocolError("a count of extents that is not theirs")
    if not all(length for length, _ in pairs):
        raise ProtocolError("an extent of no bytes")
    if sum(length for length, _ in pairs[:-1]) >= request.length:
        raise ProtocolError("extents beyond the request")
    if request.flags & CommandFlag.REQ_ONE and (len(pairs) > 1 or pairs[0][0] > request.length):
        raise ProtocolError("more than the one extent that was asked for")
    return StatusChunk(context, tuple(Extent(length, State(state)) for length, state in pairs))


def _parse_error(type_: int, payload: bytes, request: Request) -> ErrorChunk:
    error, length = _ERROR.unpack_from(payload)
    rest = payload[_ERROR.size :]
    if length > len(rest):
        raise ProtocolError("an error text longer than its chunk")
    text, rest = rest[:length].decode(errors="replace"), rest[length:]
    if type_ != ChunkType.ERROR_OFFSET:
        # Error 0 would be success under the name of failure; EINVAL is what unknown ones amount to.
        return ErrorChunk(error or WireError.EINVAL, text, None)
    if len(rest) < OFFSET.size:
        raise ProtocolError("an error without its offset")
    (offset,) = OFFSET.unpack_from(rest)
    if not request.offset <= offset < request.offset + max(request.length, 1):
        raise ProtocolError(f"an error at offset {offset}, outside its request")
    return ErrorChunk(error or WireError.EINVAL, text, offset)
