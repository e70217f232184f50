"""One virConnect: its tunnel, its threads, and the discipline that keeps them from deadlock.

The tunnel's bytes are carried by the event loop, so libvirt is never called on the loop's thread,
not even to let go of an object: an unreferenced virConnect closes itself, by a call to the daemon.
Hence everything libvirt gives stays in the daemon threads of this link, and the link itself is kept
alive until one of them has let go of the connection.
"""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from minicloud.daemons import Daemons
from minicloud.deadline import seconds_text, time_left
from minicloud.errors import NodeError, Reason
from minicloud.hypervisor.binding import libvirt_module, told
from minicloud.ssh.session import Session
from minicloud.ssh.tunnel import Opener, Tunnel

__all__ = ["Link"]

T = TypeVar("T")

_PATH: Final = 107  # unix(7): sun_path
_FAREWELL: Final = 1.0  # seconds for libvirtd to answer our goodbye
_alive: set["Link"] = set()


class Link:
    """A connection to the libvirtd of a node; made by `Link.open`."""

    def __init__(self, session: Session, opener: Opener) -> None:
        self._session = session
        self._folder = _folder()
        self._tunnel = Tunnel(str(self._folder / "s"), opener, self.cut)
        self._threads = Daemons(f"libvirt {session.node.name}")
        self._connection: Any = None  # touched by the threads alone
        self._is_cut = False
        _alive.add(self)

    @classmethod
    async def open(
        cls, session: Session, opener: Opener, uri: str, *, deadline: float | None
    ) -> "Link":
        """Connect to the daemon behind an opener.

        Args:
            session: to its node.
            opener: makes a stream to the daemon.
            uri: with `{socket}` where the path of the socket here goes.
            deadline: seconds.

        Raises:
            NodeError: the opener's own error, or why there is no connection.
        """
        libvirt = libvirt_module()
        link = cls(session, opener)
        try:
            await link._tunnel.listen()
            await link._ask(lambda: link._connect(libvirt, uri), deadline, "let us in")
        except BaseException as exc:
            link.cut()
            error = link._tunnel.error
            if isinstance(exc, NodeError) and isinstance(error, NodeError):
                raise error from None
            raise
        link._hide()
        return link

    @property
    def is_cut(self) -> bool:
        """Whether it is of no more use."""
        return self._is_cut

    async def call(self, work: Callable[[Any], T], *, deadline: float | None) -> T:
        """Do some work with the virConnect, on one of the threads.

        Args:
            work: gets the virConnect; what it returns may hold nothing of libvirt's.
            deadline: seconds; None waits for ever.

        Raises:
            NodeError: libvirt said no, or is hung or gone; then the link is cut.
        """
        return await self._ask(lambda: work(self._held()), deadline, "answer")

    def cut(self) -> None:
        """Take the transport away: each call that is under way fails at once, in its thread."""
        if self._is_cut:
            return
        self._is_cut = True
        self._tunnel.cut()
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
            if self._session.is_lost:
                raise NodeError(
                    Reason.SSH_LOST, "the ssh connection was lost", "run it again"
                ) from exc
            raise

    def _hide(self) -> None:
        """Leave nothing behind, however this process may end: libvirt opens its socket once."""
        self._tunnel.hide()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _connect(self, libvirt: Any, uri: str) -> None:
        self._connection = libvirt.open(uri.format(socket=self._tunnel.path))

    def _held(self) -> Any:
        if self._connection is None:  # it was cut while this call waited for a thread
            raise NodeError(
                Reason.LIBVIRT_LOST, "the connection to libvirtd was cut", "run it again"
            )
        return self._connection

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(libvirt_module().libvirtError):
                connection.close()


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
