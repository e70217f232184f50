"""One client, from connect to close: handshake, transmission, and a goodbye that loses no reply.

Five steps, all protocol knowledge in the codec: greet, haggle under a deadline, serve, send what
is left, close. Nothing a peer or a device does ends more than this connection.
"""

import asyncio
import contextlib
import logging
import select
import socket
import ssl
import time
from dataclasses import replace
from typing import NamedTuple

from nbdserve.errors import NbdserveError, ProtocolError
from nbdserve.protocol.constants import Option, OptionReply
from nbdserve.protocol.handshake import (
    NEED_DATA,
    Aborted,
    ExportRequested,
    ListRequested,
    Ready,
    ServerHandshake,
    TlsRequested,
)
from nbdserve.server.exports import Export, Exports
from nbdserve.server.leased import LeasedDevice
from nbdserve.server.limits import Limits
from nbdserve.server.slabs import SLAB_SIZE
from nbdserve.server.tls import Tls, reason
from nbdserve.server.tlstransmission import TlsTransmission
from nbdserve.server.transmission import Transmission
from nbdserve.tlssocket import TlsSocket

__all__ = ["ClientFacts", "Connection"]

log = logging.getLogger(__name__)

_RECEIVE = 16 << 10
_SO_SNDBUFFORCE = 32  # asm-generic/socket.h; the socket module does not name it
_DRAIN_GRACE = 1.0  # seconds a client may take to leave once told that the server goes away

# A client of an exclusive export whose node lost its power keeps others out for 20 to 23 s
# (tcp(7)): after 10 s without a word it is asked each 3 s, and given up 20 s after its last.
_WATCH = (
    (socket.TCP_KEEPIDLE, 10),
    (socket.TCP_KEEPINTVL, 3),
    (socket.TCP_KEEPCNT, 4),
    (socket.TCP_USER_TIMEOUT, 20_000),
)


class ClientFacts(NamedTuple):
    """A client, to be looked at.

    Attributes:
        peer: how logs call it.
        export: the name of the export it chose, None while it haggles.
        requests: how many it made.
        started: when it came, on the monotonic clock in seconds.
    """

    peer: str
    export: str | None
    requests: int
    started: float


class Connection:
    """Serve one client on a connected socket.

    Args:
        sock: connected and non-blocking; owned and closed by the connection.
        exports: what the client may ask for.
        limits: what it may cost.
        peer: how logs call it.
        tls: how it may speak TLS, if it may.

    Attributes:
        peer: likewise.
        export: what it has chosen; None while it haggles.
    """

    def __init__(
        self,
        sock: socket.socket,
        exports: Exports,
        limits: Limits,
        *,
        peer: str,
        tls: Tls | None = None,
    ) -> None:
        self._sock = sock
        self._exports = exports
        self._limits = limits
        self.peer = peer
        self._offered = tls
        self._tls: TlsSocket | None = None  # speaks in the socket's place from STARTTLS on
        self._handshake = ServerHandshake(
            offer_tls=tls is not None, require_tls=tls is not None and tls.is_required
        )
        self.export: Export | None = None
        self._transmission: Transmission | None = None
        self._task: asyncio.Task[None] | None = None
        self._draining = False
        self._aborted = False
        self._started = time.monotonic()

    async def run(self) -> None:
        """Serve until the client leaves, `drain` has finished, or `abort` was called.

        Never raises for what a peer or a device does.
        """
        self._task = asyncio.current_task()
        try:
            if self._aborted:  # before it began
                return
            negotiated = await self._haggle()
            if negotiated is not None:
                await self._transmit(negotiated)
        except TimeoutError as exc:
            if exc.errno is None:  # ours, and not the kernel's ETIMEDOUT
                limit = self._limits.handshake_timeout
                log.warning("handshake timed out peer=%s after=%gs", self.peer, limit)
            else:
                log.info("client vanished peer=%s: %s", self.peer, exc)
        except ProtocolError as exc:
            log.warning("client dropped peer=%s: %s", self.peer, exc)
            self._say_goodbye()
        except OSError as exc:
            log.info("client vanished peer=%s: %s", self.peer, exc)
        except asyncio.CancelledError:
            if not self._aborted:
                raise
        finally:
            self._let_go()
            self._sock.close()
            log.info(
                "connection closed peer=%s requests=%d seconds=%.3f",
                self.peer,
                self.facts().requests,
                time.monotonic() - self._started,
            )

    def facts(self) -> ClientFacts:
        """Tell about this client."""
        export = self.export.facts.name if self.export else None
        requests = self._transmission.requests if self._transmission else 0
        return ClientFacts(self.peer, export, requests, self._started)

    def _widen(self) -> None:
        """Let a Unix socket take a whole slab at once; TCP finds its own size."""
        if self._sock.family == socket.AF_UNIX:
            try:
                self._sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, SLAB_SIZE)
            except OSError:  # not root: as much as net.core.wmem_max allows
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SLAB_SIZE)

    def drain(self) -> None:
        """Let the client go: finish what is in flight, answer it, then close the socket.

        A client that is still haggling gets ERR_SHUTDOWN to its next option. ESHUTDOWN is never
        sent: it would reach a guest as an I/O error, where a closed socket makes it reconnect.
        """
        self._draining = True
        if self._transmission is not None:
            self._transmission.stop()
        else:
            self._handshake.shut_down()
            asyncio.get_running_loop().call_later(_DRAIN_GRACE, self._give_up_handshake)

    @property
    def is_leaving(self) -> bool:
        """Whether its end is certain: it was aborted, or its client has closed."""
        return self._aborted or _has_hung_up(self._sock)

    def abort(self) -> None:
        """Close at once, cancelling what is in flight."""
        self._aborted = True
        if self._task is not None:
            self._task.cancel()

    def _give_up_handshake(self) -> None:
        if self._transmission is None:
            self.abort()

    # Haggling

    async def _haggle(self) -> Ready | None:
        """Run the handshake; None if the client left without choosing an export."""
        handshake = self._handshake
        async with asyncio.timeout(self._limits.handshake_timeout):
            while True:
                event = handshake.next_event()
                if not isinstance(event, Ready):
                    self._let_go()  # what it was let into, the handshake has refused
                if isinstance(event, ExportRequested):
                    await self._answer_export(event)
                elif isinstance(event, ListRequested):
                    handshake.send_list(self._exports.listing())
                if isinstance(event, Aborted):
                    self._say_goodbye()  # many clients close without waiting for the answer
                    await self._part()
                    return None
                if isinstance(event, TlsRequested):
                    await self._start_tls()
                    continue
                await self._send(handshake.data_to_send())
                if isinstance(event, Ready):
                    return event
                if event is NEED_DATA and not await self._receive():
                    return None

    async def _answer_export(self, event: ExportRequested) -> None:
        try:
            export = await self._exports.find(event.name)
        except NbdserveError as exc:
            log.warning("export cannot be opened export=%r: %s", event.name, exc)
            self._handshake.refuse_export(OptionReply.ERR_UNKNOWN, str(exc))
            return
        if export is None:
            known = ", ".join(repr(name) for name in self._exports.names()[:8])
            text = f"no export {event.name!r} here; there is {known}"
            log.info("unknown export peer=%s export=%r", self.peer, event.name)
            self._handshake.refuse_export(OptionReply.ERR_UNKNOWN, text)
            return
        self.export = export  # from here on `Clients.end` finds it
        if export.lease is not None and event.option in (Option.GO, Option.EXPORT_NAME):
            refused = await export.lease.enter(self)
            if refused is not None:
                self.export = None
                log.info("client refused peer=%s: %s", self.peer, refused)
                self._handshake.refuse_export(OptionReply.ERR_POLICY, refused)
                return
        self._handshake.accept_export(export.facts)

    def _let_go(self) -> None:
        """Let others have an exclusive export."""
        if self.export is not None and self.export.lease is not None:
            self.export.lease.leave(self)

    async def _start_tls(self) -> None:
        """Acknowledge STARTTLS and shake hands; what came before it is forgotten."""
        assert self._offered is not None
        self._handshake.start_tls()
        await self._send(self._handshake.data_to_send())
        try:
            self._tls = await TlsSocket.handshake(
                self._sock, self._offered.context, server_side=True
            )
        except ssl.SSLError as exc:
            raise ProtocolError(f"TLS handshake failed: {reason(exc)}") from exc
        log.info("TLS started peer=%s version=%s", self.peer, self._tls.version())

    async def _send(self, data: bytes) -> None:
        if not data:
            return
        if self._tls is not None:
            await self._tls.sendall(data)
        else:
            await asyncio.get_running_loop().sock_sendall(self._sock, data)

    def _say_goodbye(self) -> None:
        """Send the answers to what came before an offence, as far as the peer takes them."""
        with contextlib.suppress(OSError):
            (self._tls or self._sock).send(self._handshake.data_to_send())

    async def _receive(self) -> bool:
        if self._tls is not None:
            data = await self._tls.recv(_RECEIVE)
        else:
            data = await asyncio.get_running_loop().sock_recv(self._sock, _RECEIVE)
        if data:
            self._handshake.receive_data(data)
        return bool(data)

    # Serving

    async def _transmit(self, ready: Ready) -> None:
        negotiated = ready.negotiated
        assert self.export is not None
        log.info(
            "connection ready peer=%s export=%r mode=%s base_allocation=%s",
            self.peer,
            negotiated.export.name,
            negotiated.mode.name.lower(),
            negotiated.base_allocation,
        )
        export = self.export
        if export.lease is not None:
            _keep_watch(self._sock)
            export = replace(export, device=LeasedDevice(export.device, export.lease, self))
        limits, peer = self._limits, self.peer
        self._transmission = (
            Transmission(self._sock, export, negotiated, limits, peer=peer)
            if self._tls is None
            else TlsTransmission(self._tls, export, negotiated, limits, peer=peer)
        )
        if self._draining:
            self._transmission.stop()
        self._widen()
        await self._transmission.run(self._handshake.trailing_data())
        self._let_go()  # before the goodbye: who comes next need not wait for it
        await self._part()

    async def _part(self) -> None:
        """Close our direction, then let the client close its own.

        Closing a TCP socket with unread requests in it resets the connection, and a reset
        discards the replies that are still on their way.
        """
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_DRAIN_GRACE):
                if self._tls is not None:
                    await self._tls.close_notify()
                self._sock.shutdown(socket.SHUT_WR)
                while await asyncio.get_running_loop().sock_recv(self._sock, _RECEIVE):
                    pass


def _keep_watch(sock: socket.socket) -> None:
    """Have the kernel notice soon when the client's node is gone; a Unix socket always tells."""
    if sock.family != socket.AF_UNIX:
        for option, value in _WATCH:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _has_hung_up(sock: socket.socket) -> bool:
    """Tell whether the peer has closed its direction, though unread requests may come first."""
    if sock.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))
