"""The clients of a server: accepted, counted, drained, awaited.

One owner holds every connection's task, so that nothing outlives the server. Over the limit a
client waits in the kernel's backlog until another leaves; so it does when the process runs out of
file descriptors, which would otherwise make accept spin.
"""

import asyncio
import errno
import logging
import socket

from nbdserve.server.connection import ClientFacts, Connection
from nbdserve.server.exports import Export, Exports
from nbdserve.server.limits import Limits
from nbdserve.server.tls import Tls

__all__ = ["Clients"]

log = logging.getLogger(__name__)

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_RETRY_ACCEPT = 1.0  # seconds to wait for resources that others must give back
_ACCEPTS_A_TURN = 32
_YIELD = 0.0005  # seconds a client that is here already is worth, among several processes
_MOST_YIELD = 0.01


class Clients:
    """Accept and hold connections.

    Args:
        exports: what they may ask for.
        limits: what each may cost.
        most: how many there may be at once.
        shared: other processes accept on the same sockets; the more clients this one has, the
            longer it leaves a new one to them.
        tls: how they may speak TLS.
    """

    def __init__(
        self,
        exports: Exports,
        limits: Limits,
        *,
        most: int,
        shared: bool = False,
        tls: Tls | None = None,
    ) -> None:
        self._exports = exports
        self._limits = limits
        self._most = most
        self._shared = shared
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[asyncio.Task[None], Connection] = {}
        self._listening: set[socket.socket] = set()
        self._paused = False
        self._retry: asyncio.TimerHandle | None = None
        self._nobody = asyncio.Event()
        self._nobody.set()

    @property
    def count(self) -> int:
        """How many clients there are."""
        return len(self._tasks)

    def facts(self) -> list[ClientFacts]:
        """Tell about every client."""
        return [connection.facts() for connection in self._tasks.values()]

    def accept_on(self, sock: socket.socket) -> None:
        """Accept clients on a listening socket; borrowed until `refuse_on`."""
        self._listening.add(sock)
        if not self._paused:
            self._loop.add_reader(sock.fileno(), self._accept, sock)

    def refuse_on(self, sock: socket.socket) -> None:
        """Accept no more on this socket."""
        if sock in self._listening:
            self._listening.remove(sock)
            self._loop.remove_reader(sock.fileno())

    def add(self, sock: socket.socket, *, peer: str) -> None:
        """Serve a client on a connected non-blocking socket, owned from now on."""
        connection = Connection(sock, self._exports, self._limits, peer=peer, tls=self._tls)
        task = self._loop.create_task(connection.run(), name=f"client {peer}")
        self._tasks[task] = connection
        self._nobody.clear()
        task.add_done_callback(self._left)
        if len(self._tasks) >= self._most:
            log.warning("no more clients are accepted count=%d", len(self._tasks))
            self._pause()

    def drain(self) -> None:
        """Let every client go; see `Connection.drain`."""
        for connection in self._tasks.values():
            connection.drain()

    def abort(self) -> None:
        """End every connection at once."""
        for connection in self._tasks.values():
            connection.abort()

    def count_of(self, export: Export | None) -> int:
        """Tell how many clients have this export, and not another one of its name."""
        return sum(one.export is export for one in self._tasks.values()) if export else 0

    async def end(self, export: Export) -> int:
        """Abort every connection to this export, wait until it is over; return how many."""
        ending = [task for task, one in self._tasks.items() if one.export is export]
        for task in ending:
            self._tasks[task].abort()
        if ending:
            await asyncio.wait(ending)
        return len(ending)

    async def gone(self) -> None:
        """Wait until there is no client."""
        await self._nobody.wait()

    def _accept(self, listening: socket.socket) -> None:
        if self._shared:
            self._loop.remove_reader(listening.fileno())
            wait = min(len(self._tasks) * _YIELD, _MOST_YIELD)
            self._loop.call_later(wait, self._accept_one, listening)
        else:
            self._accept_some(listening, _ACCEPTS_A_TURN)

    def _accept_one(self, listening: socket.socket) -> None:
        if listening in self._listening and not self._paused:
            self._accept_some(listening, 1)
        if listening in self._listening and not self._paused:
            self._loop.add_reader(listening.fileno(), self._accept, listening)

    def _accept_some(self, listening: socket.socket, most: int) -> None:
        for _ in range(most):
            if self._paused:
                return
            try:
                sock, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as exc:
                if exc.errno not in _EXHAUSTED:
                    log.warning("cannot accept: %s", exc.strerror)
                    return
                log.warning("cannot accept, waiting for others to leave: %s", exc.strerror)
                self._pause()
                self._retry = self._loop.call_later(_RETRY_ACCEPT, self._resume)
                return
            sock.setblocking(False)
            self.add(sock, peer=_describe(sock, address))

    def _left(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.error("a connection failed", exc_info=exc)
        if not self._tasks:
            self._nobody.set()
        if self._paused and self._retry is None and len(self._tasks) < self._most:
            self._resume()

    def _pause(self) -> None:
        self._paused = True
        for sock in self._listening:
            self._loop.remove_reader(sock.fileno())

    def _resume(self) -> None:
        self._paused = False
        self._retry = None
        for sock in self._listening:
            self._loop.add_reader(sock.fileno(), self._accept, sock)


def _describe(sock: socket.socket, address: object) -> str:
    """Say who the client is, and make its socket ready for NBD."""
    if sock.family == socket.AF_UNIX:
        return f"unix:{sock.fileno()}"
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if isinstance(address, tuple) and len(address) >= 2:
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        return f"{host}:{address[1]}"
    return str(address)
