"""A driver for the server's half of the handshake, without any I/O: answers out of a dict."""

import struct

from nbdserve.protocol.constants import OptionReply, TransmissionFlag
from nbdserve.protocol.handshake import (
    NEED_DATA,
    Aborted,
    ExportRequested,
    ListRequested,
    Ready,
    ServerHandshake,
    TlsRequested,
)
from nbdserve.protocol.messages import ExportFacts

HAS_FLAGS = TransmissionFlag.HAS_FLAGS


def facts(name="", **changes):
    """Make the facts of an export."""
    known = {
        "description": f"all about {name}",
        "size": 0x123456789000,
        "flags": HAS_FLAGS | TransmissionFlag.SEND_FLUSH,
        "minimum": 1,
        "preferred": 65536,
        "maximum": 32 << 20,
    }
    return ExportFacts(name, **(known | changes))


class Answering:
    """A server handshake whose questions are answered from `exports`."""

    def __init__(self, *exports, **offers):
        self.handshake = ServerHandshake(**offers)
        self.exports = {export.name: export for export in exports or (facts(), facts("disk"))}
        self.events = []
        self.sent = b""
        self.greeting = self.handshake.data_to_send()

    def feed(self, data):
        """Receive, answer what is asked, and return what is sent."""
        self.handshake.receive_data(data)
        return self.go_on()

    def go_on(self):
        """Answer what is asked, and return what is sent."""
        before = len(self.sent)
        while True:
            try:
                event = self.handshake.next_event()
            finally:
                self.sent += self.handshake.data_to_send()
            if event is NEED_DATA:
                return self.sent[before:]
            if event not in self.events[-1:]:  # an outcome is told again
                self.events.append(event)
            if isinstance(event, Ready | Aborted):
                return self.sent[before:]
            self.answer(event)

    def answer(self, event):
        """Answer an event of the handshake."""
        if isinstance(event, ListRequested):
            self.handshake.send_list([(e.name, e.description) for e in self.exports.values()])
        elif isinstance(event, TlsRequested):
            self.handshake.start_tls()
        else:
            assert isinstance(event, ExportRequested)
            found = self.exports.get(event.name)
            if found is None:
                self.handshake.refuse_export(OptionReply.ERR_UNKNOWN, "no such export")
            else:
                self.handshake.accept_export(found)

    @property
    def is_ready(self):
        """Whether the handshake has come to an export."""
        return bool(self.events) and isinstance(self.events[-1], Ready)

    @property
    def ready(self):
        """What the handshake came to."""
        event = self.events[-1]
        assert isinstance(event, Ready), event
        return event.negotiated


def replies(data):
    """Cut option replies apart: [(option, reply, payload)]."""
    found = []
    while data:
        magic, option, reply, length = struct.unpack_from(">QIII", data)
        assert magic == 0x3E889045565A9
        assert len(data) >= 20 + length
        found.append((option, reply, data[20 : 20 + length]))
        data = data[20 + length :]
    return found
