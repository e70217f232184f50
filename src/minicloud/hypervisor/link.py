"""A virConnect, or one to each of two nodes: tunnel, threads, and what keeps off deadlock.

The tunnel's bytes are carried by the event loop, so libvirt is never called on the loop's thread,
not even to let go of an object: an unreferenced virConnect closes itself, by a call to the daemon.
Hence everything libvirt gives stays in the daemon threads of this link, and the link itself is kept
alive until one of them has let go of the connection.

libvirt's client loses wake-ups between threads: while one is in a long call, what another asks on
the same virConnect may not leave the process before the first has its answer (libvirt 9.0: 9 of 11
runs of migrate3 beside jobStats hung for good; with a virConnect each, none of 8). So whatever
takes long has a link to itself, as a migration has, which talks to two nodes by turns.
"""

import asyncio
import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from minicloud.daemons import Daemons
from minicloud.deadline import seconds_text, time_left
from minicloud.errors import NodeError, Reason
from minicloud.hypervisor.binding import libvirt_module, told
from minicloud.ssh.session import Session
from minicloud.ssh.tunnel import Opener, Tunnel

__all__ = ["End", "Link"]

T = TypeVar("T")

_PATH: Final = 107  # unix(7): sun_path
_FAREWELL: Final = 1.0  # seconds for libvirtd to answer our goodbye
_alive: set["Link"] = set()


@dataclass(frozen=True, slots=True)
class End:
    """A libvirtd, and how to come to it.

    Attributes:
        session: to its node.
        opener: makes a stream to the daemon.
        uri: with `{socket}` where the path of the socket here goes.
    """

    session: Session
    opener: Opener
    uri: str


class Link:
    """A connection to the libvirtd of a node, or one to each of two; made by `Link.open`."""

    def __init__(self, ends: tuple[End, ...]) -> None:
        self._ends = ends
        self._folder = _folder()
        self._tunnels = [
            Tunnel(str(self._folder / str(number)), end.opener, self.cut)
            for number, end in enumerate(ends)
        ]
        self._threads = Daemons("libvirt " + " ".join(end.session.node.name for end in ends))
        self._connections: list[Any] = []  # touched by the threads alone
        self._calls = 0  # under way; guarded by `_change`, as libvirt's objects are used till then
        self._change = threading.Condition()
        self._is_cut = False
        _alive.add(self)

    @classmethod
    async def open(cls, *ends: End, deadline: float | None) -> "Link":
        """Connect to the daemons of one node, or of two.

        Args:
            ends: them.
            deadline: seconds.

        Raises:
            NodeError: the opener's own error, or why there is no connection.
        """
        libvirt = libvirt_module()
        link = cls(ends)
        try:
            for tunnel in link._tunnels:
                await tunnel.listen()
            await link._ask(lambda: link._connect(libvirt), deadline, "let us in")
        except BaseException as exc:
            link.cut()
            errors = [t.error for t in link._tunnels if isinstance(t.error, NodeError)]
            if errors and isinstance(exc, NodeError):
                raise errors[0] from None
            raise
        link._hide()
        return link

    @property
    def is_cut(self) -> bool:
        """Whether it is of no more use."""
        return self._is_cut

    async def call(self, work: Callable[..., T], *, deadline: float | None) -> T:
        """Do some work with the virConnect, on one of the threads.

        Args:
            work: gets the virConnect, or those of both ends; what it returns may hold nothing of
                libvirt's.
            deadline: seconds; None waits for ever.

        Raises:
            NodeError: libvirt said no, or is hung or gone; then the link is cut.
        """
        return await self._ask(lambda: self._called(work), deadline, "answer")

    def cut(self) -> None:
        """Take the transport away: each call that is under way fails at once, in its thread."""
        if self._is_cut:
            return
        self._is_cut = True
        for tunnel in self._tunnels:
            tunnel.cut()
        self._hide()
        gone = self._threads.submit(self._let_go)
        gone.add_done_callback(lambda _: _alive.discard(self))
        self._threads.end()

    async def close(self) -> None:
        """Say goodbye to libvirtd, if it listens, and end the link."""
        if not self._is_cut:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FAREWELL):
                    await self._threads.submit(self._let_go)
        self.cut()

    async def _ask(self, work: Callable[[], T], deadline: float | None, what: str) -> T:
        seconds = time_left(deadline)
        future = self._threads.submit(lambda: _translated(work))
        try:
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            self.cut()
            raise NodeError(
                Reason.LIBVIRT_HUNG,
                f"libvirtd took the connection, but did not {what} within {seconds_text(seconds)}",
                "on the node: systemctl restart libvirtd (running guests go on)",
            ) from None
        except asyncio.CancelledError:
            self.cut()
            raise
        except NodeError as exc:
            if exc.reason is not Reason.LIBVIRT_LOST:
                raise
            self.cut()
            lost = [end.session.node.name for end in self._ends if end.session.is_lost]
            if lost:
                where = "" if len(self._ends) == 1 else f" to {lost[0]}"
                text = f"the ssh connection{where} was lost"
                raise NodeError(Reason.SSH_LOST, text, "run it again") from exc
            raise

    def _hide(self) -> None:
        """Leave nothing behind, however this process may end: libvirt opens its sockets once."""
        for tunnel in self._tunnels:
            tunnel.hide()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _connect(self, libvirt: Any) -> None:
        for end, tunnel in zip(self._ends, self._tunnels, strict=True):
            self._connections.append(libvirt.open(end.uri.format(socket=tunnel.path)))

    def _called(self, work: Callable[..., T]) -> T:
        with self._change:
            if not self._connections:  # it was cut while this call waited for a thread
                raise NodeError(
                    Reason.LIBVIRT_LOST, "the connection to libvirtd was cut", "run it again"
                )
            self._calls += 1
        try:
            return work(*self._connections)
        finally:
            with self._change:
                self._calls -= 1
                self._change.notify_all()

    def _let_go(self) -> None:
        """Close the connections once no thread is in a call: it would use what was freed."""
        with self._change:
            self._change.wait_for(lambda: not self._calls)
            connections, self._connections = self._connections, []
        while connections:
            with contextlib.suppress(libvirt_module().libvirtError):
                connections.pop().close()


def _folder() -> Path:
    """Make a folder of our own, in which a socket's path is short enough: at most 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="mc-"))
    if len(os.fsencode(folder)) < _PATH - len("/s"):
        return folder
    folder.rmdir()
    return Path(tempfile.mkdtemp(prefix="mc-", dir="/tmp"))


def _translated(work: Callable[[], T]) -> T:
    """Do the work; turn libvirt's error into ours before it leaves the thread."""
    try:
        return work()
    except libvirt_module().libvirtError as exc:
        raise told(exc) from exc
