"""The handshake over a socket, option by option: for tests of what a server says before GO."""

import asyncio
import socket
from typing import Self

from nbdserve.errors import NbdserveError
from nbdserve.protocol.client_handshake import (
    Answer,
    ClientEvent,
    ClientHandshake,
    Connected,
    Greeted,
)
from nbdserve.protocol.constants import Option, OptionReply
from nbdserve.protocol.handshake_events import NEED_DATA
from nbdserve.protocol.negotiation import Wish, negotiate
from nbdserve.protocol.options import InfoRequest, MetaRequest

__all__ = ["Haggler", "RefusedError"]

_RECEIVE = 64 << 10


class RefusedError(NbdserveError):
    """The server refused an option.

    Args:
        answer: its words.
    """

    def __init__(self, answer: Answer) -> None:
        try:
            reply = OptionReply(answer.reply).name
        except ValueError:
            reply = f"{answer.reply:#x}"
        super().__init__(f"{answer.option.name} was refused with {reply}: {answer.text}")
        self.answer = answer


class Haggler:
    """A client that has been greeted and has not chosen an export; made by `greet`.

    Args:
        sock: connected and non-blocking; borrowed, never closed here.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._handshake = ClientHandshake()
        self._greeted: Greeted | None = None

    @classmethod
    async def greet(cls, sock: socket.socket) -> Self:
        """Wait for the greeting and answer it.

        Raises:
            ConnectionResetError: the server closed instead.
            ProtocolError: that is no NBD server.
        """
        haggler = cls(sock)
        event = await haggler._event()
        assert isinstance(event, Greeted)
        haggler._greeted = event
        return haggler

    async def ask(self, option: Option) -> Answer:
        """Ask an option without data; a refusal is an answer too."""
        self._handshake.ask(option)
        return await self._answer()

    async def ask_info(self, request: InfoRequest) -> Answer:
        """Ask INFO."""
        self._handshake.ask_info(Option.INFO, request)
        return await self._answer()

    async def ask_meta(self, option: Option, request: MetaRequest) -> Answer:
        """Ask LIST_META_CONTEXT or SET_META_CONTEXT."""
        self._handshake.ask_meta(option, request)
        return await self._answer()

    async def connect(self, wish: Wish) -> Connected:
        """Negotiate and choose an export.

        Raises:
            RefusedError: the server said no.
            ConnectionResetError: it closed, which is how EXPORT_NAME is refused.
        """
        assert self._greeted is not None
        plan = negotiate(self._handshake, self._greeted, wish)
        next(plan)
        while True:
            event = await self._event()
            if isinstance(event, Connected):
                return event
            assert isinstance(event, Answer)
            try:
                plan.send(event)
            except StopIteration as stop:
                raise RefusedError(stop.value) from None

    def trailing_data(self) -> bytes:
        """Take the bytes that came after the handshake's last."""
        return self._handshake.trailing_data()

    async def _answer(self) -> Answer:
        event = await self._event()
        assert isinstance(event, Answer)
        return event

    async def _event(self) -> ClientEvent:
        """Send what waits and receive until something has happened."""
        while True:
            event = self._handshake.next_event()
            if waiting := self._handshake.data_to_send():
                await self._loop.sock_sendall(self._sock, waiting)
            if event is not NEED_DATA:
                return event
            data = await self._loop.sock_recv(self._sock, _RECEIVE)
            if not data:
                raise ConnectionResetError("the server closed the connection during the handshake")
            self._handshake.receive_data(data)
