"""A guest's serial console: libvirt's stream, as bytes both ways.

The stream does not block. libvirt's own thread reads it when there is something to read and hands
the bytes to asyncio's loop; what is typed goes through `Hypervisor.call`. Only `_Stream` ever holds
the virStream, and lets go of it on a thread of libvirt's: `start_events` must have been called
before the hypervisor was connected.

Bounded: once so many bytes wait for the terminal, the stream is not read until they are gone, and
the guest's console waits. A connection that is lost may end a stream without a word, so a reader
that got nothing for a while asks whether the guest is still there.
"""

import asyncio
import contextlib
import functools
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from minicloud.errors import NodeError, Reason
from minicloud.hypervisor.binding import libvirt_module
from minicloud.hypervisor.power import Power, look, until_off

if TYPE_CHECKING:
    from minicloud.hypervisor.driver import Hypervisor

__all__ = ["Console"]

_MOST: Final = 1 << 18  # bytes that may wait for the terminal
_PIECE: Final = 1 << 16  # bytes read at once; libvirt's own packets hold no more than 256 KiB
_IDLE: Final = 15.0  # seconds without a byte before the guest is looked at
_LAST: Final = 3.0  # seconds from the end of a console to the guest's, at most
_FULL: Final = 0.02  # seconds before another try where the guest does not take what was typed
_AGAIN: Final = -2  # what libvirt-python's recv and send give where they would have to wait


class Console:
    """A console while it is open; an asynchronous context manager, used by one task each way.

    Args:
        hypervisor: of the guest's node.
        uuid: of the guest.
        force: take the console away from whoever has it.

    Raises:
        NodeError: on entering: the guest is off, has no console, or somebody has it.
    """

    def __init__(self, hypervisor: "Hypervisor", uuid: str, *, force: bool = False) -> None:
        self._hypervisor = hypervisor
        self._uuid = uuid
        self._stream = _Stream(uuid, force=force)

    async def __aenter__(self) -> Self:
        try:
            await self._hypervisor.call(self._stream.open)
        except NodeError as exc:
            if "Active console session exists" not in exc.message:
                raise
            raise NodeError(
                Reason.LIBVIRT, "somebody else has its console open", "take it away with --force"
            ) from exc
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(NodeError):  # the connection is lost, the stream with it
            await self._hypervisor.call(self._stream.close)

    async def read(self) -> bytes:
        """Return what the guest wrote, as soon as there is any; b"" at the end of the console.

        Raises:
            NodeError: the connection is lost.
        """
        while True:
            try:
                async with asyncio.timeout(_IDLE):
                    await self._stream.filled.wait()
            except TimeoutError:
                if (await self._hypervisor.call(look(self._uuid))).is_off:
                    return b""
                continue
            data, has_ended, is_held = self._stream.take()
            if is_held:
                await self._hypervisor.call(self._stream.go_on)
            if data or has_ended:
                return data

    async def write(self, data: bytes) -> None:
        """Type something.

        Raises:
            NodeError: the connection, or the console, is no more.
        """
        while data:
            sent = await self._hypervisor.call(functools.partial(self._stream.send, data))
            if sent == 0:
                await asyncio.sleep(_FULL)
            data = data[sent:]

    async def last(self) -> Power:
        """Tell how the guest is at the end: going off, it closes its console some moments before.

        Raises:
            NodeError: the connection is lost.
        """
        return await until_off(self._hypervisor, self._uuid, _LAST)


class _Stream:
    """The virStream, and what came out of it. All but `filled` and `take` is libvirt's threads'."""

    def __init__(self, uuid: str, *, force: bool) -> None:
        self.filled = asyncio.Event()  # bytes are there, or the end; set and cleared on the loop
        self._uuid = uuid
        self._force = force
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()  # over the next four
        self._waiting = bytearray()
        self._has_ended = False
        self._is_held = False
        self._stream: Any = None

    def take(self) -> tuple[bytes, bool, bool]:
        """Return what is there, whether that is the end, and whether the stream has to go on."""
        with self._lock:
            data, has_ended, is_held = bytes(self._waiting), self._has_ended, self._is_held
            self._waiting.clear()
            self._is_held = False
            if not has_ended:
                self.filled.clear()
        return data, has_ended, is_held and not has_ended

    def open(self, connection: Any) -> None:
        lib = libvirt_module()
        domain = connection.lookupByUUIDString(self._uuid)
        stream = connection.newStream(lib.VIR_STREAM_NONBLOCK)
        domain.openConsole(None, stream, lib.VIR_DOMAIN_CONSOLE_FORCE if self._force else 0)
        self._stream = stream
        stream.eventAddCallback(self._wanted(), self._on_event, None)

    def go_on(self, _connection: Any) -> None:
        if self._stream is not None:
            self._stream.eventUpdateCallback(self._wanted())

    def send(self, data: bytes, _connection: Any) -> int:
        """Return how many bytes were taken."""
        if self._stream is None or self._has_ended:
            return len(data)  # nobody is there to read it; the reader says so
        sent: int = self._stream.send(data)
        return 0 if sent == _AGAIN else sent

    def close(self, _connection: Any) -> None:
        lib = libvirt_module()
        stream, self._stream = self._stream, None
        if stream is None:
            return
        with contextlib.suppress(lib.libvirtError):
            stream.eventRemoveCallback()
        with contextlib.suppress(lib.libvirtError):
            stream.abort()

    def _on_event(self, stream: Any, events: int, _opaque: object) -> None:
        lib = libvirt_module()
        try:
            data = stream.recv(_PIECE) if events & lib.VIR_STREAM_EVENT_READABLE else b""
            if data == _AGAIN:
                return
            self._add(stream, data)
        except lib.libvirtError:
            self._add(stream, b"")

    def _add(self, stream: Any, data: bytes) -> None:
        lib = libvirt_module()
        with self._lock:
            self._waiting += data
            self._has_ended = not data
            self._is_held = len(self._waiting) > _MOST
            if self._has_ended:
                stream.eventRemoveCallback()
            elif self._is_held:
                stream.eventUpdateCallback(self._wanted() & ~lib.VIR_STREAM_EVENT_READABLE)
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self.filled.set)

    @staticmethod
    def _wanted() -> int:
        lib = libvirt_module()
        wanted: int = (
            lib.VIR_STREAM_EVENT_READABLE | lib.VIR_STREAM_EVENT_HANGUP | lib.VIR_STREAM_EVENT_ERROR
        )
        return wanted
