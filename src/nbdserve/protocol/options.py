"""Options of the handshake as clients send them: encoded by one half, parsed by the other.

Pure: bytes in, values out, and back. What cannot be parsed raises `OptionError` with the reply that
belongs to it, so that a handler never looks at a length; nothing is read past the payload.
Source: NBD proto.md, "Newstyle negotiation", "Option types", "String values".
"""

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from nbdserve.protocol.constants import MAX_STRING, OPTION_MAGIC, OptionReply

__all__ = [
    "OPTION_HEADER",
    "InfoRequest",
    "MetaRequest",
    "OptionError",
    "encode_info_request",
    "encode_meta_request",
    "encode_option",
    "encode_string",
    "parse_info_request",
    "parse_meta_request",
    "parse_name",
]

OPTION_HEADER: Final = struct.Struct(">8sII")
"""Magic, option, length of the payload."""

_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")


class OptionError(Exception):
    """An option is refused; the connection goes on.

    Args:
        reply: the error reply.
        text: for the client's user, one line, in short: it never repeats what the client sent.
        info: payload of an NBD_REP_INFO that is sent before the error.
    """

    def __init__(self, reply: OptionReply, text: str, *, info: bytes | None = None) -> None:
        super().__init__(text)
        self.reply = reply
        self.text = text
        self.info = info


class InfoRequest(NamedTuple):
    """The payload of INFO and GO.

    Attributes:
        name: the export's name.
        asked: information types, as numbers: unknown ones are no error.
    """

    name: str
    asked: tuple[int, ...] = ()


class MetaRequest(NamedTuple):
    """The payload of LIST_META_CONTEXT and SET_META_CONTEXT.

    Attributes:
        name: the export's name.
        queries: names of contexts or wildcards; on LIST, none stands for all.
    """

    name: str
    queries: tuple[str, ...] = ()


def encode_option(option: int, payload: bytes = b"") -> bytes:
    """Encode an option with its header."""
    return OPTION_HEADER.pack(OPTION_MAGIC, option, len(payload)) + payload


def encode_info_request(request: InfoRequest) -> bytes:
    """Encode the payload of INFO or GO."""
    asked = struct.pack(f">H{len(request.asked)}H", len(request.asked), *request.asked)
    return _counted(request.name) + asked


def encode_meta_request(request: MetaRequest) -> bytes:
    """Encode the payload of LIST_META_CONTEXT or SET_META_CONTEXT."""
    queries: Iterable[bytes] = map(_counted, request.queries)
    return _counted(request.name) + _U32.pack(len(request.queries)) + b"".join(queries)


def encode_string(text: str) -> bytes:
    """Encode a text as a string of the protocol: no NUL, at most 4096 bytes of whole characters."""
    return (
        text.replace("\0", "?")
        .encode(errors="replace")[:MAX_STRING]
        .decode(errors="ignore")
        .encode()
    )


def parse_name(payload: bytes) -> str:
    """Parse the payload of EXPORT_NAME, or any string of the protocol.

    Raises:
        OptionError: longer than 4096 bytes, not UTF-8, or with a NUL.
    """
    if len(payload) > MAX_STRING:
        raise OptionError(
            OptionReply.ERR_INVALID, f"a string of {len(payload)} bytes; at most {MAX_STRING}"
        )
    if b"\0" in payload:
        raise OptionError(OptionReply.ERR_INVALID, "a string with a NUL")
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise OptionError(OptionReply.ERR_INVALID, "a string that is not UTF-8") from None


def parse_info_request(payload: bytes) -> InfoRequest:
    """Parse the payload of INFO or GO.

    Raises:
        OptionError: truncated, overlong, or with a bad name.
    """
    fields = _Fields(payload)
    name = fields.string()
    asked = tuple(fields.number(_U16) for _ in range(fields.number(_U16)))
    fields.end()
    return InfoRequest(name, asked)


def parse_meta_request(payload: bytes) -> MetaRequest:
    """Parse the payload of LIST_META_CONTEXT or SET_META_CONTEXT.

    Raises:
        OptionError: truncated, overlong, or with a bad string.
    """
    fields = _Fields(payload)
    name = fields.string()
    queries = tuple(fields.string() for _ in range(fields.number(_U32)))
    fields.end()
    return MetaRequest(name, queries)


def _counted(text: str) -> bytes:
    encoded = text.encode()
    return _U32.pack(len(encoded)) + encoded


class _Fields:
    """Fields of a payload, one after the other; a count that is a lie ends at the first missing."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._position = 0

    def number(self, form: struct.Struct) -> int:
        value: int = form.unpack(self._take(form.size))[0]
        return value

    def string(self) -> str:
        return parse_name(self._take(self.number(_U32)))

    def end(self) -> None:
        left = len(self._payload) - self._position
        if left:
            raise OptionError(
                OptionReply.ERR_INVALID, f"{left} bytes too many after the option's data"
            )

    def _take(self, length: int) -> bytes:
        start, self._position = self._position, self._position + length
        if self._position > len(self._payload):
            raise OptionError(OptionReply.ERR_INVALID, "the option's data is truncated")
        return self._payload[start : self._position]
