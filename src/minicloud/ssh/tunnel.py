"""A Unix socket here that leads to something on a node.

For programs and libraries that insist on a path, as libvirt does. Each connection to the path is
spliced to a stream of its own, which the opener makes; an opener that fails closes the connection
and its error is kept, since whoever connected sees no more than an end of file.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import asyncssh

from minicloud.errors import MinicloudError

__all__ = ["Opener", "Tunnel"]

logger = logging.getLogger(__name__)

_PIECE: Final = 1 << 16

Opener = Callable[[], Awaitable[tuple[Any, Any]]]
"""Makes a stream: something with `read`, and something with `write`, `drain`, `write_eof`."""


class Tunnel:
    """Listens at a path until it is closed.

    Args:
        path: of the socket; only its owner may connect.
        opener: makes the far end of a connection.
        on_end: called whenever a connection has ended.

    Attributes:
        error: why the last far end could not be made.
    """

    def __init__(self, path: str, opener: Opener, on_end: Callable[[], None] | None = None) -> None:
        self.path = path
        self.error: MinicloudError | None = None
        self._opener = opener
        self._on_end = on_end
        self._server: asyncio.Server | None = None
        self._is_cut = False
        self._near: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        """Begin to listen."""
        self._server = await asyncio.start_unix_server(self._accept, sock=_bound(self.path))

    def hide(self) -> None:
        """Take the path away; the connections it has stay."""
        if self._server is not None:
            self._server.close()
        Path(self.path).unlink(missing_ok=True)

    def cut(self) -> None:
        """End all at once: whoever waits for bytes at the path gets an end of file."""
        self._is_cut = True
        self.hide()
        for near in self._near:
            near.transport.abort()
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        """End all and wait until it has."""
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._near.add(writer)
        try:
            await self._splice(reader, writer)
        except asyncio.CancelledError:
            if not self._is_cut:
                raise
        except MinicloudError as exc:
            self.error = exc
        except (OSError, asyncssh.Error) as exc:
            logger.debug("a connection broke path=%s", self.path, exc_info=exc)
        finally:
            writer.transport.abort()
            self._near.discard(writer)
            self._tasks.discard(task)
            if self._on_end is not None:
                self._on_end()

    async def _splice(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await self._opener()
        try:
            there = asyncio.create_task(_copy(reader, far_writer))
            try:
                await _copy(far_reader, writer)
            finally:
                there.cancel()
                await asyncio.gather(there, return_exceptions=True)
        finally:
            far_writer.close()


def _bound(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    Path(path).chmod(0o600)  # before anybody can connect
    return sock


async def _copy(reader: Any, writer: Any) -> None:
    """Carry all bytes one way, then the end of them."""
    while piece := await reader.read(_PIECE):
        writer.write(piece)
        await writer.drain()
    writer.write_eof()
