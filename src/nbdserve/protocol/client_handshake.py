"""The client's half of the handshake, sans-I/O: options out, one answer each back.

Options may be asked one at a time, as the spec wants it, or pipelined: answers come in the order of
the options, and every reply must name the option it belongs to. What to ask in which order is
decided elsewhere (`negotiation`). A driver sends `data_to_send()` and takes events until
`NEED_DATA`:

    Greeted           options may be asked from now on
    Answer            one option's whole answer; a refusal is no exception
    Connected         the transmission phase begins, with `trailing_data()`
    ProtocolError     is raised, not returned: close

Bound: holds at most `MOST_HELD` bytes of replies, besides those of the latest `receive_data`.
Source: NBD proto.md, "Newstyle negotiation", "Option types", "Option reply types".
"""

from collections import deque
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from nbdserve.errors import ProtocolError
from nbdserve.protocol.constants import (
    OPTION_REPLY_MAGIC,
    HandshakeFlag,
    Info,
    Option,
    OptionReply,
    TransmissionFlag,
)
from nbdserve.protocol.handshake_events import NEED_DATA, NeedData
from nbdserve.protocol.messages import BASE_ALLOCATION, ExportFacts, Negotiated, ReplyMode
from nbdserve.protocol.option_replies import (
    CHOSEN,
    GREETING,
    REPLY_HEADER,
    ZEROES,
    BlockSizes,
    Listing,
    MetaContext,
    known_flags,
    parse_block_sizes,
    parse_context,
    parse_export,
    parse_greeting,
    parse_listing,
)
from nbdserve.protocol.options import (
    InfoRequest,
    MetaRequest,
    encode_info_request,
    encode_meta_request,
    encode_option,
)

__all__ = ["Answer", "ClientEvent", "ClientHandshake", "Connected", "Greeted"]

DEFAULT_BLOCK_SIZES = BlockSizes(1, 4096, 32 << 20)
"""What holds when the server tells none (spec, "Size constraints")."""

_MOST_REPLY = 64 << 10  # two strings and a few numbers are the longest reply the spec knows
_INFO_OPTIONS = frozenset({Option.INFO, Option.GO})
_META_OPTIONS = frozenset({Option.LIST_META_CONTEXT, Option.SET_META_CONTEXT})


@dataclass(frozen=True, slots=True)
class Greeted:
    """The server has greeted, with the handshake flags known here."""

    flags: HandshakeFlag


@dataclass(frozen=True, slots=True)
class Answer:
    """How an option was answered.

    Attributes:
        option: the option.
        reply: the last reply's type: ACK, or an error, possibly one that is not known here.
        text: the server's words for an error.
        exports: of a LIST.
        contexts: of LIST_META_CONTEXT and SET_META_CONTEXT.
        export: of INFO and GO, if the server told of it.
        block_sizes: of INFO and GO, if told; also beside ERR_BLOCK_SIZE_REQD.
    """

    option: Option
    reply: int
    text: str = ""
    exports: tuple[Listing, ...] = ()
    contexts: tuple[MetaContext, ...] = ()
    export: ExportFacts | None = None
    block_sizes: BlockSizes | None = None

    @property
    def is_accepted(self) -> bool:
        """Whether the server said yes."""
        return self.reply == OptionReply.ACK


@dataclass(frozen=True, slots=True)
class Connected:
    """The server serves the export.

    Attributes:
        negotiated: with the export as the server told of it.
        contexts: selected for this export; their ids are the server's.
    """

    negotiated: Negotiated
    contexts: tuple[MetaContext, ...]


ClientEvent = NeedData | Greeted | Answer | Connected


class _Asked(NamedTuple):
    option: Option
    name: str


class ClientHandshake:
    """Haggle with one server."""

    MOST_HELD: ClassVar[int] = 16 << 20

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._out = bytearray()
        self._flags: HandshakeFlag | None = None
        self._asked: deque[_Asked] = deque()
        self._replies: list[tuple[int, bytes]] = []  # of the option being answered
        self._replied = 0  # bytes in them
        self._mode = ReplyMode.SIMPLE
        self._contexts: tuple[MetaContext, ...] = ()
        self._context_export: str | None = None
        self._connected: Connected | None = None

    @property
    def mode(self) -> ReplyMode:
        """What was negotiated so far."""
        return self._mode

    def data_to_send(self) -> bytes:
        """Take what waits to be sent."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def receive_data(self, data: bytes | memoryview) -> None:
        """Hand over what the server sent; the bytes are copied."""
        self._buffer += data

    def trailing_data(self) -> bytes:
        """Take the bytes that came after the handshake's last: they are replies.

        Raises:
            RuntimeError: not Connected yet.
        """
        if self._connected is None:
            raise RuntimeError("trailing data belongs to the transmission phase: not Connected yet")
        return self._take(len(self._buffer))

    # Asking

    def ask(self, option: Option) -> None:
        """Ask an option that has no data: ABORT, LIST, STARTTLS, STRUCTURED_REPLY, ...

        After an accepted STARTTLS upgrade the connection, then call `forget`.
        """
        self._ask(option, "", b"")

    def ask_info(self, option: Option, request: InfoRequest) -> None:
        """Ask INFO or GO."""
        self._ask(option, request.name, encode_info_request(request))

    def ask_meta(self, option: Option, request: MetaRequest) -> None:
        """Ask LIST_META_CONTEXT or SET_META_CONTEXT."""
        if option == Option.SET_META_CONTEXT:
            self._context_export, self._contexts = None, ()
        self._ask(option, request.name, encode_meta_request(request))

    def choose(self, name: str) -> None:
        """Ask EXPORT_NAME, for servers without GO: the server closes if there is no such export."""
        self._ask(Option.EXPORT_NAME, name, name.encode())

    def forget(self) -> None:
        """Forget what was negotiated, and what was received outside of the TLS that now begins."""
        self._buffer.clear()
        self._mode = ReplyMode.SIMPLE
        self._context_export, self._contexts = None, ()

    def _ask(self, option: Option, name: str, payload: bytes) -> None:
        if self._flags is None:
            raise RuntimeError("the server has not greeted yet")
        if self._connected is not None:
            raise RuntimeError("the handshake is over")
        if option != Option.EXPORT_NAME and not self._flags & HandshakeFlag.FIXED_NEWSTYLE:
            raise RuntimeError("this server takes no option but EXPORT_NAME")
        self._asked.append(_Asked(option, name))
        self._out += encode_option(option, payload)

    # Being answered

    def next_event(self) -> ClientEvent:
        """Return what the bytes received so far complete.

        Raises:
            ProtocolError: the server cannot be haggled with; close the connection.
        """
        if self._connected is not None:
            return self._connected
        if self._flags is None:
            return self._greet()
        if self._asked and self._asked[0].option == Option.EXPORT_NAME:
            return self._take_chosen()
        while True:
            reply = self._take_reply()
            if reply is None:
                return NEED_DATA
            self._keep(*reply)
            if reply[0] == OptionReply.ACK or reply[0] >> 31:
                return self._conclude()

    def _greet(self) -> ClientEvent:
        if len(self._buffer) < GREETING.size:
            return NEED_DATA
        self._flags = parse_greeting(self._take(GREETING.size))
        self._out += int(self._flags).to_bytes(4, "big")  # the same bits mean the same to a client
        return Greeted(self._flags)

    def _take_chosen(self) -> ClientEvent:
        assert self._flags is not None
        zeroes = 0 if self._flags & HandshakeFlag.NO_ZEROES else len(ZEROES)
        if len(self._buffer) < CHOSEN.size + zeroes:
            return NEED_DATA
        size, flags = CHOSEN.unpack(self._take(CHOSEN.size))
        self._take(zeroes)
        name = self._asked.popleft().name
        return self._connect(name, _facts(name, "", size, known_flags(flags), None))

    def _take_reply(self) -> tuple[int, bytes] | None:
        if len(self._buffer) < REPLY_HEADER.size:
            return None
        magic, option, reply, length = REPLY_HEADER.unpack_from(self._buffer)
        if magic != OPTION_REPLY_MAGIC:
            raise ProtocolError(f"bad option reply magic {magic:#018x}")
        if not self._asked or option != self._asked[0].option:
            raise ProtocolError(f"a reply to option {option}, which was not the one asked")
        if length > _MOST_REPLY:
            raise ProtocolError(f"an option reply of {length} bytes")
        if len(self._buffer) < REPLY_HEADER.size + length:
            return None
        self._take(REPLY_HEADER.size)
        return reply, self._take(length)

    def _keep(self, reply: int, payload: bytes) -> None:
        self._replied += REPLY_HEADER.size + len(payload)
        if self._replied > self.MOST_HELD - _MOST_REPLY - REPLY_HEADER.size:
            raise ProtocolError(f"over {self._replied} bytes in reply to one option")
        self._replies.append((reply, payload))

    def _conclude(self) -> ClientEvent:
        """Turn the replies to an option into its answer, and remember what it changed."""
        option, name = self._asked.popleft()
        replies, self._replies, self._replied = self._replies, [], 0
        answer = _answer(option, name, replies)
        if not answer.is_accepted:
            return answer
        if option == Option.STRUCTURED_REPLY:
            self._mode = max(self._mode, ReplyMode.STRUCTURED)
        elif option == Option.EXTENDED_HEADERS:
            self._mode = ReplyMode.EXTENDED
        elif option == Option.SET_META_CONTEXT:
            self._context_export, self._contexts = name, answer.contexts
        elif option == Option.GO:
            assert answer.export is not None
            return self._connect(name, answer.export)
        return answer

    def _connect(self, name: str, export: ExportFacts) -> Connected:
        contexts = self._contexts if self._context_export == name else ()
        base_allocation = any(context.name == BASE_ALLOCATION for context in contexts)
        negotiated = Negotiated(export, self._mode, base_allocation)
        self._connected = Connected(negotiated, contexts)
        return self._connected

    def _take(self, count: int) -> bytes:
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data


def _answer(option: Option, name: str, replies: list[tuple[int, bytes]]) -> Answer:
    """Make an answer of the replies to an option; the last of them concludes it."""
    *details, (reply, last) = replies
    exports: list[Listing] = []
    contexts: list[MetaContext] = []
    infos: dict[int, bytes] = {}
    for kind, payload in details:
        if kind == OptionReply.SERVER and option == Option.LIST:
            exports.append(parse_listing(payload))
        elif kind == OptionReply.META_CONTEXT and option in _META_OPTIONS:
            contexts.append(parse_context(payload))
        elif kind == OptionReply.INFO and option in _INFO_OPTIONS and len(payload) >= 2:
            infos[int.from_bytes(payload[:2], "big")] = payload
        else:
            raise ProtocolError(f"a reply of type {kind:#x} to {option.name}")
    block_sizes = parse_block_sizes(infos[Info.BLOCK_SIZE]) if Info.BLOCK_SIZE in infos else None
    export = _export(name, infos, block_sizes)
    if option in _INFO_OPTIONS and reply == OptionReply.ACK and export is None:
        raise ProtocolError(f"{option.name} was accepted without NBD_INFO_EXPORT")
    return Answer(
        option,
        reply,
        last.decode(errors="replace"),
        tuple(exports),
        tuple(contexts),
        export,
        block_sizes,
    )


def _export(
    name: str, infos: dict[int, bytes], block_sizes: BlockSizes | None
) -> ExportFacts | None:
    if Info.EXPORT not in infos:
        return None
    size, flags = parse_export(infos[Info.EXPORT])
    told = infos.get(Info.NAME)
    description = infos.get(Info.DESCRIPTION, b"")[2:].decode(errors="replace")
    if told is not None:
        name = told[2:].decode(errors="replace")
    return _facts(name, description, size, flags, block_sizes)


def _facts(
    name: str,
    description: str,
    size: int,
    flags: TransmissionFlag,
    block_sizes: BlockSizes | None,
) -> ExportFacts:
    return ExportFacts(name, description, size, flags, *(block_sizes or DEFAULT_BLOCK_SIZES))
