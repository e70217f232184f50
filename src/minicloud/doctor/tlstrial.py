"""A try of TLS with the export server, as a guest of a node would: its way, and whom it trusts.

The node's own private key stays on it, so whether the server lets the node in is not tried.
"""

import asyncio
import ssl
from dataclasses import dataclass
from typing import ClassVar

from minicloud.model.inventory import NbdService
from minicloud.ssh.streams import Reader, Writer
from nbdserve.errors import ProtocolError
from nbdserve.protocol.client_handshake import Answer, ClientHandshake, Greeted
from nbdserve.protocol.constants import Option
from nbdserve.protocol.handshake_events import NEED_DATA

__all__ = ["Trial", "try_tls"]

_RECEIVE = 16 << 10
_MISMATCHES = frozenset({62, 64})  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_EXPIRED = frozenset({9, 10})  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of it.

    Attributes:
        version: of TLS, if it worked.
        problem: one of the kinds below, or None.
        text: what is wrong.
    """

    NO_TLS: ClassVar = "no-tls"
    NAME: ClassVar = "name"
    EXPIRED: ClassVar = "expired"
    UNTRUSTED: ClassVar = "untrusted"
    OTHER: ClassVar = "other"

    version: str = ""
    problem: str | None = None
    text: str = ""


async def try_tls(reader: Reader, writer: Writer, nbd: NbdService, authority: str) -> Trial:
    """Shake hands on a fresh connection to the export server.

    Args:
        reader: of the connection.
        writer: likewise.
        nbd: whom to expect.
        authority: the certificates that the node trusts, in PEM.
    """
    name = nbd.tls_hostname or nbd.address
    try:
        if (refusal := await _start(reader, writer)) is not None:
            return Trial(problem=Trial.NO_TLS, text=f"nbdserve speaks no TLS: {refusal}")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=authority)
        return Trial(version=await _shake_hands(reader, writer, context, name))
    except ssl.SSLCertVerificationError as exc:
        return Trial(problem=_kind(exc), text=f"the export server's certificate: {_words(exc)}")
    except (ssl.SSLError, ProtocolError, OSError, EOFError) as exc:
        return Trial(problem=Trial.OTHER, text=f"TLS with the export server fails: {exc}")


async def _start(reader: Reader, writer: Writer) -> str | None:
    """Ask for TLS; return the refusal."""
    handshake = ClientHandshake()
    while True:
        event = handshake.next_event()
        if isinstance(event, Greeted):
            handshake.ask(Option.STARTTLS)
        elif isinstance(event, Answer):
            return None if event.is_accepted else event.text or f"error {event.reply:#x}"
        writer.write(handshake.data_to_send())
        if event is NEED_DATA:
            handshake.receive_data(await _some(reader))


async def _shake_hands(
    reader: Reader, writer: Writer, context: ssl.SSLContext, name: str
) -> str:  # fmt: skip
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing, server_hostname=name)
    while True:
        try:
            session.do_handshake()
        except ssl.SSLWantReadError:
            writer.write(outgoing.read())
            incoming.write(await _some(reader))
        else:
            return session.version() or "TLS"


async def _some(reader: Reader) -> bytes:
    async with asyncio.timeout(5):
        data = await reader.read(_RECEIVE)
    if not data:
        raise EOFError("the server closed")
    return data


def _kind(exc: ssl.SSLCertVerificationError) -> str:
    if exc.verify_code in _MISMATCHES:
        return Trial.NAME
    return Trial.EXPIRED if exc.verify_code in _EXPIRED else Trial.UNTRUSTED


def _words(exc: ssl.SSLCertVerificationError) -> str:
    return exc.verify_message.rstrip(".")
