"""The server's half of the handshake, sans-I/O: greeting, option haggling, and what came of it.

The bytes are cut into options by `OptionReader`; what is done about one is a row of the table in
`option_handlers`; this is the machine that carries it out. Whether an export exists is the driver's
business: the handshake asks with an event and goes on when it is answered. A driver takes events
until `NEED_DATA`, sending `data_to_send()` after each:

    ListRequested     answer with `send_list`
    ExportRequested   answer with `accept_export` or `refuse_export`
    TlsRequested      call `start_tls`, send, upgrade the connection, go on
    Ready             the transmission phase begins, with `trailing_data()`
    Aborted           send, then close
    ProtocolError     is raised, not returned: close

Bound: between calls it holds at most `MOST_HELD` bytes of input besides those of the latest
`receive_data`; longer options are passed over as they arrive. Of its own accord (that is, but for
what the driver's answers say) it queues at most `MOST_ECHOED` bytes for each byte received.
Source: NBD proto.md, "Newstyle negotiation", "Option types", "TLS support"; its
extension-ext-header branch, "NBD_OPT_EXTENDED_HEADERS".
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import ClassVar

from nbdserve.errors import ProtocolError
from nbdserve.protocol.constants import (
    CLIENT_FLAGS,
    HandshakeFlag,
    Option,
    OptionReply,
    TransmissionFlag,
)
from nbdserve.protocol.handshake_events import (
    NEED_DATA,
    Aborted,
    Event,
    ExportRequested,
    ListRequested,
    Ready,
    TlsRequested,
)
from nbdserve.protocol.messages import ExportFacts, Negotiated, ReplyMode
from nbdserve.protocol.option_handlers import (
    HANDLERS,
    STRUCTURED_ONLY,
    WITH_DATA,
    Accepted,
    Agreed,
    AskDriver,
    AskExport,
    Handler,
    Step,
    Terms,
)
from nbdserve.protocol.option_reader import OptionReader, ReceivedOption
from nbdserve.protocol.option_replies import (
    Listing,
    encode_chosen,
    encode_error,
    encode_greeting,
    encode_listing,
    encode_reply,
)
from nbdserve.protocol.options import OptionError

__all__ = [
    "NEED_DATA",
    "Aborted",
    "Event",
    "ExportRequested",
    "ListRequested",
    "Ready",
    "ServerHandshake",
    "TlsRequested",
]

_SERVER_FLAGS = HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES


class ServerHandshake:
    """Haggle with one client.

    Args:
        offer_tls: accept STARTTLS.
        require_tls: refuse everything else before it; implies `offer_tls`.
        extended: offer extended headers.
        structured: offer structured replies, and with them meta contexts.
    """

    MOST_HELD: ClassVar[int] = OptionReader.MOST_HELD
    MOST_ECHOED: ClassVar[int] = 8

    def __init__(
        self,
        *,
        offer_tls: bool = False,
        require_tls: bool = False,
        extended: bool = True,
        structured: bool = True,
    ) -> None:
        unsupported: set[Option] = set()
        if not (offer_tls or require_tls):
            unsupported.add(Option.STARTTLS)
        if not extended:
            unsupported.add(Option.EXTENDED_HEADERS)
        if not structured:
            unsupported |= STRUCTURED_ONLY
        self._handlers = {o: h for o, h in HANDLERS.items() if o not in unsupported}
        self._require_tls = require_tls
        self._shut_down = False
        self._reader = OptionReader(WITH_DATA)
        self._out = bytearray(encode_greeting(_SERVER_FLAGS))
        self._greeted = False  # the client's flags came
        self._zeroes = True
        self._option = 0  # the option being answered
        self._awaited: type[Event] | None = None  # the event the driver has to answer
        self._on_accept: Callable[[ExportFacts], Accepted] | None = None
        self._terms = Terms()
        self._outcome: Ready | Aborted | None = None
        self._failure: str | None = None

    # The driver's side

    def data_to_send(self) -> bytes:
        """Take what waits to be sent; the first call returns the greeting."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def receive_data(self, data: bytes | memoryview) -> None:
        """Hand over what the client sent; the bytes are copied."""
        if self._failure is None and not isinstance(self._outcome, Aborted):
            self._reader.receive(data)

    def next_event(self) -> Event:
        """Go on until the driver is needed, and say what for.

        The outcome, once there is one, is told again by every further call.

        Raises:
            ProtocolError: the client cannot be haggled with; close the connection.
            RuntimeError: the last event has not been answered.
        """
        if self._awaited is not None:
            raise RuntimeError(f"{self._awaited.__name__} has to be answered first")
        while self._failure is None and self._outcome is None:
            try:
                event = self._step()
            except ProtocolError as exc:
                self._fail(str(exc))
            else:
                if event is not None:
                    return event
        if self._outcome is not None:
            return self._outcome
        raise ProtocolError(self._failure or "")

    def shut_down(self) -> None:
        """Answer every option but ABORT with ERR_SHUTDOWN from now on."""
        self._shut_down = True

    def trailing_data(self) -> bytes:
        """Take the bytes that came after the handshake's last: they are requests.

        Raises:
            RuntimeError: the handshake is not over.
        """
        if self._outcome is None:
            raise RuntimeError("trailing data belongs to the transmission phase: not Ready yet")
        return self._reader.take_rest()

    def send_list(self, exports: Iterable[tuple[str, str]]) -> None:
        """Answer `ListRequested` with the name and description of each export."""
        self._answering(ListRequested)
        if self._shut_down:
            self._refuse(_shutting_down())
            return
        for name, description in exports:
            self._reply(OptionReply.SERVER, encode_listing(Listing(name, description)))
        self._reply(OptionReply.ACK)

    def accept_export(self, facts: ExportFacts) -> None:
        """Answer `ExportRequested`: the export exists. SEND_DF is set or cleared here."""
        self._answering(ExportRequested)
        on_accept, self._on_accept = self._on_accept, None
        assert on_accept is not None
        flags = facts.flags & ~TransmissionFlag.SEND_DF
        if self._terms.mode is not ReplyMode.SIMPLE:
            flags |= TransmissionFlag.SEND_DF
        try:
            if self._shut_down:
                raise _shutting_down()
            self._conclude(on_accept(replace(facts, flags=flags)))
        except OptionError as exc:
            self._refuse(exc)

    def refuse_export(self, reply: OptionReply, text: str) -> None:
        """Answer `ExportRequested`: it cannot be had.

        An EXPORT_NAME cannot be told so: `next_event` will raise ProtocolError.

        Args:
            reply: ERR_UNKNOWN, or the error that says why.
            text: for the client's user.
        """
        if not reply >> 31:
            raise ValueError(f"{reply!r} is no error")
        self._answering(ExportRequested)
        self._on_accept = None
        self._refuse(OptionError(reply, text))

    def start_tls(self) -> None:
        """Answer `TlsRequested`: acknowledge it, and forget what was negotiated or received.

        What came in before TLS may be an attacker's, and must not be taken for what comes through
        it (CVE-2021-3716). The client's handshake flags stay: they cannot be sent again.
        """
        self._answering(TlsRequested)
        self._terms = Terms(tls=True)
        self._reader.clear()
        self._reply(OptionReply.ACK)

    # Deciding

    def _step(self) -> Event | None:
        """Take one thing from the client: None if it was dealt with and the next may be taken."""
        if not self._greeted:
            return self._take_flags()
        received = self._reader.next_option()
        if received is None:
            return NEED_DATA
        self._option = received.option
        if received.option == Option.ABORT:
            self._reply(OptionReply.ACK)
            self._outcome = Aborted()
            self._reader.clear()
            return None
        if received.option == Option.SET_META_CONTEXT:
            self._terms = self._terms._replace(context_export=None)  # even if it fails
        try:
            return self._carry_out(self._handler(received)(self._terms, received))
        except OptionError as exc:
            self._refuse(exc)
            return None

    def _take_flags(self) -> Event | None:
        flags = self._reader.next_flags()
        if flags is None:
            return NEED_DATA
        if flags & ~CLIENT_FLAGS:
            raise ProtocolError(f"unknown client flags {flags & ~CLIENT_FLAGS:#x}")
        self._zeroes = not flags & HandshakeFlag.NO_ZEROES
        self._greeted = True
        return None

    def _handler(self, received: ReceivedOption) -> Handler:
        """Find what to do about the option, or why nothing may be done."""
        if self._shut_down:
            raise _shutting_down()
        if self._require_tls and not self._terms.tls and self._option != Option.STARTTLS:
            raise OptionError(OptionReply.ERR_TLS_REQD, "this server requires TLS; start it first")
        handler = self._handlers.get(received.option)
        if handler is None:
            raise OptionError(OptionReply.ERR_UNSUP, f"option {received.option} is not supported")
        return handler

    # Carrying out what a handler decided

    def _carry_out(self, step: Step) -> Event | None:
        if isinstance(step, Agreed):
            self._terms = step.terms
            self._reply(OptionReply.ACK)
            return None
        event: Event
        if isinstance(step, AskExport):
            self._on_accept = step.on_accept
            event = ExportRequested(step.name, Option(self._option))
        else:
            event = ListRequested() if step is AskDriver.LIST else TlsRequested()
        self._awaited = type(event)
        return event

    def _conclude(self, accepted: Accepted) -> None:
        for reply, payload in accepted.replies:
            self._reply(reply, payload)
        if accepted.context_export is not None:
            self._terms = self._terms._replace(context_export=accepted.context_export)
        if self._option == Option.EXPORT_NAME:
            assert accepted.chosen is not None
            self._out += encode_chosen(accepted.chosen, zeroes=self._zeroes)
        else:
            self._reply(OptionReply.ACK)
        if accepted.chosen is not None:
            base_allocation = self._terms.context_export == accepted.chosen.name
            self._outcome = Ready(Negotiated(accepted.chosen, self._terms.mode, base_allocation))

    # Bytes

    def _reply(self, reply: OptionReply, payload: bytes = b"") -> None:
        self._out += encode_reply(self._option, reply, payload)

    def _refuse(self, error: OptionError) -> None:
        if self._option == Option.EXPORT_NAME:  # has no error reply
            self._fail(f"export refused: {error.text}")
        else:
            if error.info is not None:
                self._reply(OptionReply.INFO, error.info)
            self._out += encode_error(self._option, error.reply, error.text)

    def _fail(self, text: str) -> None:
        self._failure = text
        self._reader.clear()

    def _answering(self, event: type[Event]) -> None:
        if self._awaited is not event:
            raise RuntimeError(f"this answers {event.__name__}, which was not the last event")
        self._awaited = None


def _shutting_down() -> OptionError:
    return OptionError(OptionReply.ERR_SHUTDOWN, "this server is shutting down; come back later")
