"""The libvirt of one node, by whichever way it can be had.

First its sockets, forwarded by sshd; where sshd forwards none, a helper on the node that joins its
standard input and output to the socket, as `qemu+ssh` does. What is wrong with a node where neither
works is found out by one command there, and only then.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar

from minicloud.errors import NodeError, Reason
from minicloud.hypervisor.link import End, Link
from minicloud.hypervisor.sockets import (
    Sockets,
    candidates,
    helper_command,
    inspection,
    parse_sockets,
)
from minicloud.ssh.session import Session

__all__ = ["Hypervisor"]

T = TypeVar("T")

_SYSTEM: Final = "qemu:///system"
_SESSION: Final = "qemu:///session"


class Hypervisor:
    """Calls to the libvirt of a node; connects when it is first called, and again when it must.

    Args:
        session: to the node.
        uri: of libvirt's driver there; None is qemu's, by the socket.
    """

    def __init__(self, session: Session, uri: str | None = None) -> None:
        self._session = session
        self._paths = candidates(session.node.libvirt_socket)
        self._uri = uri or _driver(self._paths)
        self._link: Link | None = None
        self._pairs: set[Link] = set()
        self._opening = asyncio.Lock()

    async def call(self, work: Callable[[Any], T], *, deadline: float | None = 10) -> T:
        """Do some work with the node's virConnect, on one of the node's own threads.

        Calls may overlap, each has a thread; but one that takes long may keep others waiting until
        it is done (see `link`). A migration, which takes longest, goes by `call_with`.

        Args:
            work: gets the virConnect. All that libvirt gives it must die inside: it returns plain
                values. A libvirtError it lets out becomes a NodeError whose cause it is.
            deadline: seconds, for connecting and for the work each; None waits for ever. When they
                are over, or the caller is cancelled, the transport is cut, which ends every call
                of this node that is under way; the next one connects anew.

        Raises:
            NodeError: `libvirt` where libvirt refused; else why it cannot be asked.
        """
        link = await self._linked(deadline)
        return await link.call(work, deadline=deadline)

    async def call_with(
        self,
        other: "Hypervisor",
        work: Callable[[Any, Any], T],
        *,
        deadline: float | None = None,
        opening: float = 10,
    ) -> T:
        """Do some work with this node and another at once: a migration talks to both by turns.

        It has a virConnect to each, opened for it and closed after it, and a thread: other calls to
        both nodes go on meanwhile. They all live and die in that thread.

        Args:
            other: the other node.
            work: gets the virConnect of this node, then that of the other; as with `call`.
            deadline: seconds for the work; as with `call`.
            opening: seconds to connect.

        Raises:
            NodeError: as with `call`.
        """
        link = await Link.open(self.end, other.end, deadline=opening)
        self._pairs.add(link)
        try:
            return await link.call(work, deadline=deadline)
        finally:
            self._pairs.discard(link)
            await link.close()

    @property
    def end(self) -> End:
        """How its libvirtd is come to."""
        transport, _, path = self._uri.partition("://")
        return End(self._session, self._stream, f"{transport}+unix://{path}?socket={{socket}}")

    def cut(self) -> None:
        """End every call at once."""
        for pair in self._pairs:
            pair.cut()
        if self._link is not None:
            self._link.cut()

    async def close(self) -> None:
        """End the connection to libvirt; that of ssh is its owner's."""
        if self._link is not None:
            await self._link.close()

    async def _linked(self, deadline: float | None) -> Link:
        async with self._opening:
            if self._link is None or self._link.is_cut:
                self._link = await Link.open(self.end, deadline=deadline)
            return self._link

    async def _stream(self) -> tuple[Any, Any]:
        """Open the way to libvirt's socket."""
        for path in self._paths:
            try:
                return await self._session.open_unix(path)
            except NodeError as exc:
                if exc.reason is not Reason.NO_FORWARDING:
                    raise
        facts = await self._look()
        is_configured = self._session.node.libvirt_socket is not None
        helper = helper_command(facts, self._uri, is_configured=is_configured)
        if helper is None:
            raise facts.error()
        return await self._session.stream(helper)

    async def _look(self) -> Sockets:
        done = await self._session.run(inspection(self._paths))
        facts = parse_sockets(done.stdout.decode(errors="replace"))
        if not facts.sockets:
            raise NodeError(
                Reason.NO_FORWARDING,
                f"sshd forwards to no socket of libvirt ({', '.join(self._paths)}), and runs no "
                "shell that could say why",
                "AllowStreamLocalForwarding yes in sshd_config, for a user with a shell",
            )
        return facts


def _driver(paths: tuple[str, ...]) -> str:
    """Tell the driver by the socket: one below /run/user is a user's own daemon."""
    return _SESSION if paths[0].startswith("/run/user/") else _SYSTEM
