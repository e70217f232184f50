"""A connected socket that speaks TLS, with the few methods that an NBD driver uses of a socket.

OpenSSL works in memory here, and never on the descriptor: so one receive brings many records, one
send takes many, and what to wait for is always the descriptor itself.

Two things differ from a socket, and a driver has to know them. What was received may be held
decrypted while the descriptor is not readable: `pending` tells. And ciphertext cannot be made
twice: what `sendmsg` did not count is to be given again, the same bytes first (an outbox does).

Invariant: ciphertext leaves in the order it was made, and plaintext is counted as sent only when
all its ciphertext has left.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator, Sequence
from typing import Self

__all__ = ["TlsSocket"]

_RECEIVE = 128 << 10
_CHUNK = 64 << 10  # encrypted at once: four records; smaller buffers are joined up to this
_SEND = 256 << 10  # of plaintext in one sendmsg, so that a slow peer costs no more memory

_received = memoryview(bytearray(_RECEIVE))  # ciphertext on its way to OpenSSL, never across calls


class TlsSocket:
    """The TLS session on a socket, after its handshake; made by `handshake`.

    Args:
        sock: connected and non-blocking; borrowed.
        context: the credentials.
        server_side: which half of the handshake is ours.
        server_hostname: for a client, whom to expect.
    """

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None = None,
    ) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname
        )
        self._left = memoryview(b"")  # ciphertext the socket did not take
        self._held = 0  # bytes of plaintext, first in the next sendmsg, that it was made of
        self.pending = False
        """Whether `recv_into` may find something although the socket is not readable."""

    @classmethod
    async def handshake(
        cls,
        sock: socket.socket,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None = None,
    ) -> Self:
        """Start TLS.

        Raises:
            ssl.SSLError: the peer cannot be spoken to, or is not let in; it was told so.
            ConnectionResetError: it closed.
        """
        made = cls(sock, context, server_side=server_side, server_hostname=server_hostname)
        loop = asyncio.get_running_loop()
        while True:
            try:
                made._tls.do_handshake()
            except ssl.SSLWantReadError:
                await loop.sock_sendall(sock, made._outgoing.read())
                data = await loop.sock_recv(sock, _RECEIVE)
                if not data:
                    raise ConnectionResetError("closed during the TLS handshake") from None
                made._incoming.write(data)
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    sock.send(made._outgoing.read())  # the alert
                raise
            else:
                await loop.sock_sendall(sock, made._outgoing.read())
                made.pending = made._incoming.pending > 0
                return made

    def version(self) -> str:
        """Name the protocol, e.g. TLSv1.3."""
        return self._tls.version() or "TLS"

    def fileno(self) -> int:
        """Return the descriptor to wait for; nothing may be sent or received there."""
        return self._sock.fileno()

    # As a socket has them

    def recv_into(self, buffer: memoryview) -> int:
        """Receive into a buffer, as much as is there; 0 if the peer has closed its direction.

        Raises:
            BlockingIOError: nothing is there.
            ConnectionResetError: it was cut off without a close_notify: somebody else's doing, or
                that of a peer that does not care.
            OSError: it broke.
        """
        self.pending = False
        total = 0
        while total < len(buffer):
            try:
                count = self._tls.read(len(buffer) - total, buffer[total:])
            except ssl.SSLWantReadError:
                if total:
                    break
                self._feed()
                continue
            except ssl.SSLError as exc:
                if total:  # it is told next time
                    self.pending = True
                    break
                raise _broken(exc) from None
            if not count:
                self.pending = total > 0
                break
            total += int(count)
        else:
            self.pending = True
        if self._outgoing.pending:
            self._flush()
        return total

    def sendmsg(
        self,
        buffers: Sequence[bytes | memoryview],
        _ancillary: Sequence[object] = (),
        _flags: int = 0,
    ) -> int:
        """Send buffers, as far as the socket takes them; return how many bytes were taken.

        Raises:
            BlockingIOError: none. The next call must begin with the same bytes.
            OSError: the peer is gone.
        """
        if not self._flush():
            raise BlockingIOError
        sent, self._held = self._held, 0
        made = 0
        for chunk in _chunks(buffers, sent):
            try:
                self._tls.write(chunk)
            except ssl.SSLError as exc:
                raise _broken(exc) from None
            made += len(chunk)
            if made >= _SEND:
                break
        if self._flush():
            return sent + made
        self._held = made
        if not sent:
            raise BlockingIOError
        return sent

    # For a handshake, where one waits for the other

    async def recv(self, most: int) -> bytes:
        """Receive some bytes; none if the peer has closed. Raises as `recv_into` does."""
        buffer = memoryview(bytearray(most))
        while True:
            try:
                return bytes(buffer[: self.recv_into(buffer)])
            except BlockingIOError:
                data = await asyncio.get_running_loop().sock_recv(self._sock, _RECEIVE)
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()

    async def sendall(self, data: bytes) -> None:
        """Send bytes."""
        loop = asyncio.get_running_loop()
        self._tls.write(data)
        left, self._left = self._left, memoryview(b"")
        await loop.sock_sendall(self._sock, bytes(left) + self._outgoing.read())

    def send(self, data: bytes) -> None:
        """Send bytes as far as the socket takes them at once; the last that are sent."""
        if data:
            self._tls.write(data)
        self._flush()

    async def close_notify(self) -> None:
        """Tell the peer that nothing follows, so that it can tell the end from a cut."""
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()  # wants to read the peer's, which need not come
        left, self._left = self._left, memoryview(b"")
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._sock, bytes(left) + self._outgoing.read())

    def _feed(self) -> None:
        count = self._sock.recv_into(_received)
        if count:
            self._incoming.write(_received[:count])
        else:
            self._incoming.write_eof()

    def _flush(self) -> bool:
        """Send ciphertext as far as the socket takes it; tell whether all has left."""
        if not self._left:
            if not self._outgoing.pending:
                return True
            self._left = memoryview(self._outgoing.read())
        while self._left:
            try:
                count = self._sock.send(self._left)
            except (BlockingIOError, InterruptedError):
                return False
            self._left = self._left[count:]
            if not self._left and self._outgoing.pending:
                self._left = memoryview(self._outgoing.read())
        return True


def _chunks(buffers: Sequence[bytes | memoryview], skip: int) -> Iterator[bytes | memoryview]:
    """Cut buffers, but for their first `skip` bytes, into chunks; the small ones are joined."""
    pieces: list[bytes | memoryview] = []
    room = _CHUNK
    for buffer in buffers:
        if skip >= len(buffer):
            skip -= len(buffer)
            continue
        view = memoryview(buffer)[skip:]
        skip = 0
        while view:
            piece, view = view[:room], view[room:]
            pieces.append(piece)
            room -= len(piece)
            if not room:
                yield pieces[0] if len(pieces) == 1 else b"".join(pieces)
                pieces, room = [], _CHUNK
    if pieces:
        yield pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _broken(exc: ssl.SSLError) -> OSError:
    if isinstance(exc, ssl.SSLEOFError):
        return ConnectionResetError("the TLS session was cut off, without a close_notify")
    return OSError(f"TLS: {exc.reason or exc}")
