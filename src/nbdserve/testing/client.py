"""An asyncio NBD client for tests, on the project's own codec.

It asks what it is told to ask, also what a server must refuse, and tells everything that came
back: every chunk of a reply, every word of an error. It does not retry, split, cache or reconnect.

Requests are pipelined: any method may be called while others wait, and replies are matched by
cookie. The client owns one task, which receives; it starts with the first request, and `close`
cancels it. When the connection ends, every request under way fails with `ConnectionResetError`, or
with the `ProtocolError` that ended it.
"""

import asyncio
import itertools
import socket
from collections.abc import Sequence
from os import PathLike
from types import TracebackType
from typing import Self, TypedDict, Unpack

from nbdserve.errors import NbdserveError
from nbdserve.extents import Extent
from nbdserve.protocol.client_handshake import Connected
from nbdserve.protocol.constants import Command, CommandFlag, Info
from nbdserve.protocol.messages import BASE_ALLOCATION, ExportFacts, ReplyMode, Request
from nbdserve.protocol.negotiation import Wish
from nbdserve.protocol.reply_chunks import StatusChunk
from nbdserve.protocol.reply_decoder import Reply, ReplyDecoder
from nbdserve.protocol.requests import encode_request
from nbdserve.testing.haggler import Haggler

__all__ = ["Client", "RemoteError", "Wishes", "open_tcp", "open_unix"]


class RemoteError(NbdserveError):
    """The server answered a request with an error.

    Args:
        error: the number on the wire, a `WireError` if the server keeps to the spec.
        text: its words; empty in a simple reply.
        offset: the place it told, if any.
    """

    def __init__(self, error: int, text: str, offset: int | None) -> None:
        super().__init__(f"the server answered error {error}: {text or 'no text'}")
        self.error = error
        self.text = text
        self.offset = offset


class Wishes(TypedDict, total=False):
    """What a client may wish for: the fields of `negotiation.Wish`, all optional."""

    export: str
    mode: ReplyMode
    contexts: tuple[str, ...]
    infos: tuple[Info, ...]


class Client:
    """A connection in the transmission phase; made by `connect_unix`, `connect_tcp`, `from_socket`.

    As an asynchronous context manager it leaves with `disconnect`, or with `close` if the block
    failed.

    Attributes:
        export: what the server told of the export.
        mode: how replies are framed.
        contexts: the metadata contexts selected for the export.
    """

    def __init__(self, sock: socket.socket, connected: Connected, trailing: bytes) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self.export: ExportFacts = connected.negotiated.export
        self.mode: ReplyMode = connected.negotiated.mode
        self.contexts = connected.contexts
        self._trailing = trailing
        self._decoder: ReplyDecoder | None = None
        self._cookies = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._ended: Exception | None = None
        self._sending = asyncio.Lock()
        self._receiver: asyncio.Task[None] | None = None

    @classmethod
    async def connect_unix(cls, path: str | PathLike[str], **wishes: Unpack[Wishes]) -> Self:
        """Connect to an export on a Unix socket.

        Raises:
            RefusedError: the server refused the export.
            OSError: there is no such server, or it closed.
        """
        return await cls.from_socket(await open_unix(path), **wishes)

    @classmethod
    async def connect_tcp(cls, host: str, port: int, **wishes: Unpack[Wishes]) -> Self:
        """Connect to an export on a TCP port; raises as `connect_unix` does."""
        return await cls.from_socket(await open_tcp(host, port), **wishes)

    @classmethod
    async def from_socket(cls, sock: socket.socket, **wishes: Unpack[Wishes]) -> Self:
        """Negotiate on a connected non-blocking socket, which the client owns from here on."""
        try:
            haggler = await Haggler.greet(sock)
            connected = await haggler.connect(Wish(**wishes))
        except BaseException:
            sock.close()
            raise
        return cls(sock, connected, haggler.trailing_data())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is None and self._ended is None:
            await self.disconnect()
        else:
            await self.close()

    # Requests

    async def read(self, offset: int, length: int, flags: int = 0) -> bytes:
        """Read bytes.

        Raises:
            RemoteError: the server answered an error; likewise for every request below.
            ConnectionError: the connection ended before the reply.
            ProtocolError: the server broke the protocol.
        """
        data = _checked(await self.request(Command.READ, offset, length, flags=flags)).data
        return b"" if data is None else bytes(data)

    async def write(self, offset: int, data: bytes | memoryview, flags: int = 0) -> None:
        """Write bytes."""
        if self.mode is ReplyMode.EXTENDED:
            flags |= CommandFlag.PAYLOAD_LEN
        await self._simply(Command.WRITE, offset, len(data), flags, data)

    async def flush(self, flags: int = 0) -> None:
        """Make what was written durable."""
        await self._simply(Command.FLUSH, 0, 0, flags)

    async def trim(self, offset: int, length: int, flags: int = 0) -> None:
        """Discard a range."""
        await self._simply(Command.TRIM, offset, length, flags)

    async def write_zeroes(self, offset: int, length: int, flags: int = 0) -> None:
        """Zero a range."""
        await self._simply(Command.WRITE_ZEROES, offset, length, flags)

    async def cache(self, offset: int, length: int, flags: int = 0) -> None:
        """Ask the server to make a range fast to read."""
        await self._simply(Command.CACHE, offset, length, flags)

    async def block_status(
        self, offset: int, length: int, flags: int = 0, *, context: str = BASE_ALLOCATION
    ) -> Sequence[Extent]:
        """Ask for the extents of one of the selected contexts."""
        reply = _checked(await self.request(Command.BLOCK_STATUS, offset, length, flags=flags))
        ids = {found.id for found in self.contexts if found.name == context}
        for chunk in reply.chunks:
            if isinstance(chunk, StatusChunk) and chunk.context in ids:
                return chunk.extents
        raise KeyError(f"no extents of {context!r} in the reply")

    async def request(
        self,
        command: int,
        offset: int = 0,
        length: int = 0,
        *,
        flags: int = 0,
        payload: bytes | memoryview | None = None,
        into: memoryview | None = None,
    ) -> Reply:
        """Send any request, known or not, and return its whole reply, error or not.

        Args:
            command: a `Command`, or any number.
            offset: in bytes.
            length: in bytes.
            flags: `CommandFlag`s, or any bits.
            payload: sent after the header as it is.
            into: memory for the data of a READ; not to be reused if this call is cancelled.
        """
        cookie = next(self._cookies)
        body = None if payload is None else memoryview(payload)
        request = Request(flags, command, cookie, offset, length, body)
        if self._ended is not None:
            raise self._ended
        self._start_receiving().expect(request, into)
        future: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting[cookie] = future
        try:
            await self.send_raw(self._encode(request))
            return await future
        finally:
            self._waiting.pop(cookie, None)

    async def disconnect(self) -> None:
        """Leave as the spec has it: DISC, then wait until the server closes. Ends in `close`."""
        request = Request(0, Command.DISC, next(self._cookies), 0, 0)
        try:
            if self._ended is None:
                self._start_receiving()
                await self.send_raw(self._encode(request))
                assert self._receiver is not None
                await asyncio.wait([self._receiver])
        finally:
            await self.close()

    async def close(self) -> None:
        """Close at once; requests under way fail with ConnectionResetError. May be repeated."""
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.cancel()
            await asyncio.wait([receiver])
        self._end(ConnectionResetError("the client was closed"))
        self._sock.close()

    # Raw access

    async def send_raw(self, data: bytes) -> None:
        """Send bytes as they are, between two requests. Cancelling it ends the connection."""
        async with self._sending:
            try:
                await self._loop.sock_sendall(self._sock, data)
            except OSError:
                raise
            except BaseException:
                self._end(ConnectionResetError("a request was cut short"))
                raise

    async def recv_exactly(self, length: int) -> bytes:
        """Receive bytes as they are; only as long as no request was made.

        Raises:
            RuntimeError: the receiver has been started.
            EOFError: the server closed before.
        """
        if self._receiver is not None:
            raise RuntimeError("replies are being received already; make no request before this")
        while len(self._trailing) < length:
            more = await self._loop.sock_recv(self._sock, length - len(self._trailing))
            if not more:
                raise EOFError(f"the server closed after {self._trailing!r}")
            self._trailing += more
        data, self._trailing = self._trailing[:length], self._trailing[length:]
        return data

    # Receiving

    def _start_receiving(self) -> ReplyDecoder:
        if self._decoder is None:
            self._decoder = ReplyDecoder(self.mode, trailing=self._trailing)
            self._receiver = self._loop.create_task(self._receive(self._decoder))
        return self._decoder

    async def _receive(self, decoder: ReplyDecoder) -> None:
        count = 0
        try:
            while True:
                for reply in decoder.received(count):
                    future = self._waiting.pop(reply.request.cookie, None)
                    if future is not None and not future.done():
                        future.set_result(reply)
                count = await self._loop.sock_recv_into(self._sock, decoder.buffer())
                if count == 0:
                    self._end(ConnectionResetError("the server closed the connection"))
                    return
        except (NbdserveError, OSError) as exc:
            self._end(exc)

    def _end(self, exc: Exception) -> None:
        """Fail every request under way, and those to come."""
        self._ended = self._ended or exc
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(self._ended)
        self._waiting.clear()

    def _encode(self, request: Request) -> bytes:
        return encode_request(request, extended=self.mode is ReplyMode.EXTENDED)

    async def _simply(
        self,
        command: Command,
        offset: int,
        length: int,
        flags: int,
        payload: bytes | memoryview | None = None,
    ) -> None:
        _checked(await self.request(command, offset, length, flags=flags, payload=payload))


async def open_unix(path: str | PathLike[str]) -> socket.socket:
    """Connect a non-blocking socket to a Unix socket."""
    return await _open(socket.AF_UNIX, str(path))


async def open_tcp(host: str, port: int) -> socket.socket:
    """Connect a non-blocking socket to a TCP port, without delay for small requests."""
    sock = await _open(socket.AF_INET6 if ":" in host else socket.AF_INET, (host, port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


async def _open(family: socket.AddressFamily, address: str | tuple[str, int]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.settimeout(0)
    try:
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


def _checked(reply: Reply) -> Reply:
    if reply.error is not None:
        raise RemoteError(*reply.error)
    return reply
