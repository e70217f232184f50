"""Replies of the handshake as servers send them: encoded by one half, parsed by the other.

Pure. Parsers raise `ProtocolError`: a server whose reply cannot be parsed cannot be haggled with.
Texts for people are decoded leniently, names strictly.
Source: NBD proto.md, "Newstyle negotiation", "Fixed newstyle negotiation", "Option reply types".
"""

import struct
from collections.abc import Container, Iterator
from typing import Final, NamedTuple

from nbdserve.errors import ProtocolError
from nbdserve.protocol.constants import (
    INIT_MAGIC,
    OPTION_MAGIC,
    OPTION_REPLY_MAGIC,
    HandshakeFlag,
    Info,
    OptionReply,
    TransmissionFlag,
)
from nbdserve.protocol.messages import ExportFacts
from nbdserve.protocol.options import OptionError, encode_string, parse_name

__all__ = [
    "CHOSEN",
    "GREETING",
    "REPLY_HEADER",
    "ZEROES",
    "BlockSizes",
    "Listing",
    "MetaContext",
    "encode_block_sizes",
    "encode_chosen",
    "encode_context",
    "encode_error",
    "encode_greeting",
    "encode_infos",
    "encode_listing",
    "encode_reply",
    "known_flags",
    "parse_block_sizes",
    "parse_context",
    "parse_export",
    "parse_greeting",
    "parse_listing",
]

GREETING: Final = struct.Struct(">8s8sH")
"""Two magics and the handshake flags."""

REPLY_HEADER: Final = struct.Struct(">QIII")
"""Magic, option, reply type, length of the payload."""

CHOSEN: Final = struct.Struct(">QH")
"""Answer to EXPORT_NAME: size and transmission flags; `ZEROES` follow unless waived."""

ZEROES: Final = bytes(124)

_EXPORT = struct.Struct(">HQH")
_BLOCK_SIZE = struct.Struct(">HIII")
_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")


class Listing(NamedTuple):
    """One export of a LIST."""

    name: str
    description: str


class MetaContext(NamedTuple):
    """A metadata context; the id means nothing on a LIST."""

    id: int
    name: str


class BlockSizes(NamedTuple):
    """Size constraints in bytes: smallest block, preferred block, largest payload."""

    minimum: int
    preferred: int
    maximum: int


def encode_greeting(flags: HandshakeFlag) -> bytes:
    """Encode the first bytes of a server."""
    return GREETING.pack(INIT_MAGIC, OPTION_MAGIC, flags)


def parse_greeting(data: bytes) -> HandshakeFlag:
    """Parse the first 18 bytes of a server; flags this client does not know are dropped.

    Raises:
        ProtocolError: not an NBD server, or one of the old style.
    """
    init, magic, flags = GREETING.unpack(data)
    if init != INIT_MAGIC:
        raise ProtocolError(f"not an NBD server: it begins with {init!r}")
    if magic != OPTION_MAGIC:
        raise ProtocolError("an NBD server of the old style, which has no options; use a newer one")
    return HandshakeFlag(flags & (HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES))


def encode_reply(option: int, reply: OptionReply, payload: bytes = b"") -> bytes:
    """Encode any reply to an option with its header."""
    return REPLY_HEADER.pack(OPTION_REPLY_MAGIC, option, reply, len(payload)) + payload


def encode_error(option: int, reply: OptionReply, text: str) -> bytes:
    """Encode an error reply; the text is cut at 4096 bytes."""
    return encode_reply(option, reply, encode_string(text))


def encode_listing(listing: Listing) -> bytes:
    """Encode the payload of NBD_REP_SERVER."""
    name = encode_string(listing.name)
    return _U32.pack(len(name)) + name + encode_string(listing.description)


def parse_listing(payload: bytes) -> Listing:
    """Parse the payload of NBD_REP_SERVER."""
    (length,) = _unpack_from(_U32, payload)
    if length > len(payload) - _U32.size:
        raise ProtocolError("a listed export's name is longer than its reply")
    name, rest = payload[4 : 4 + length], payload[4 + length :]
    return Listing(_name(name), rest.decode(errors="replace"))


def parse_export(payload: bytes) -> tuple[int, TransmissionFlag]:
    """Parse NBD_INFO_EXPORT: size, and the flags known here."""
    _, size, flags = _unpack(_EXPORT, payload)
    return size, known_flags(flags)


def encode_infos(facts: ExportFacts, asked: Container[int]) -> Iterator[bytes]:
    """Encode the payload of each NBD_REP_INFO: NBD_INFO_EXPORT always, others when asked."""
    yield _EXPORT.pack(Info.EXPORT, facts.size, facts.flags)
    if Info.NAME in asked:
        yield _U16.pack(Info.NAME) + encode_string(facts.name)
    if Info.DESCRIPTION in asked:
        yield _U16.pack(Info.DESCRIPTION) + encode_string(facts.description)
    if Info.BLOCK_SIZE in asked:
        yield encode_block_sizes(facts)


def encode_block_sizes(facts: ExportFacts) -> bytes:
    """Encode NBD_INFO_BLOCK_SIZE."""
    return _BLOCK_SIZE.pack(Info.BLOCK_SIZE, facts.minimum, facts.preferred, facts.maximum)


def parse_block_sizes(payload: bytes) -> BlockSizes:
    """Parse NBD_INFO_BLOCK_SIZE.

    Raises:
        ProtocolError: wrong length, or a minimum that is no power of two up to 65,536.
    """
    _, *sizes = _unpack(_BLOCK_SIZE, payload)
    found = BlockSizes(*sizes)
    if found.minimum.bit_count() != 1 or found.minimum > 1 << 16:
        raise ProtocolError(f"the server's minimum block size is {found.minimum}")
    return found


def encode_context(context: MetaContext) -> bytes:
    """Encode the payload of NBD_REP_META_CONTEXT."""
    return _U32.pack(context.id) + encode_string(context.name)


def parse_context(payload: bytes) -> MetaContext:
    """Parse the payload of NBD_REP_META_CONTEXT."""
    (id_,) = _unpack_from(_U32, payload)
    return MetaContext(id_, _name(payload[4:]))


def encode_chosen(facts: ExportFacts, *, zeroes: bool) -> bytes:
    """Encode the answer to EXPORT_NAME."""
    return CHOSEN.pack(facts.size, facts.flags) + (ZEROES if zeroes else b"")


def known_flags(flags: int) -> TransmissionFlag:
    """Drop the transmission flags not known here, as clients should."""
    return TransmissionFlag(flags & int(~TransmissionFlag(0)))


def _unpack(form: struct.Struct, payload: bytes) -> tuple[int, ...]:
    if len(payload) != form.size:
        raise ProtocolError(f"a reply of {len(payload)} bytes where {form.size} belong")
    return form.unpack(payload)


def _unpack_from(form: struct.Struct, payload: bytes) -> tuple[int, ...]:
    if len(payload) < form.size:
        raise ProtocolError(f"a reply of {len(payload)} bytes where {form.size} or more belong")
    return form.unpack_from(payload)


def _name(payload: bytes) -> str:
    try:
        return parse_name(payload)
    except OptionError as exc:
        raise ProtocolError(f"the server sent {exc.text}") from None
