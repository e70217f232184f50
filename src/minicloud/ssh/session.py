"""One ssh connection to one node, and everything that goes through it.

Nothing here waits for longer than it was told; what breaks is a NodeError that says whether the
connection was lost, the way was forbidden, or the far end was not there.
"""

import asyncio
import contextlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import asyncssh

from minicloud.deadline import seconds_text, time_left
from minicloud.errors import NodeError, Reason
from minicloud.model.inventory import Node
from minicloud.ssh.access import access_of
from minicloud.ssh.diagnosing import lost, not_opened, socket_not_opened
from minicloud.ssh.greeting import Greeting
from minicloud.ssh.streams import Reader, Writer
from minicloud.ssh.tunnel import Opener, Tunnel

__all__ = ["Completed", "Reader", "Session", "Writer"]

# Commands at once on one connection: sshd_config(5), MaxSessions, is 10 where nobody set it.
_COMMANDS: Final = 8
_FAREWELL: Final = 0.5  # seconds to say goodbye


@dataclass(frozen=True, slots=True)
class Completed:
    """What a command on a node did.

    Attributes:
        status: it exited with; minus the number of the signal that ended it.
        stdout: all it wrote.
        stderr: likewise.
    """

    status: int
    stdout: bytes
    stderr: bytes


class Session:
    """A connection; made by `minicloud.ssh.connecting.Connector`.

    Attributes:
        node: the node it leads to.
        connection: asyncssh's, for what is in `minicloud.ssh` alone.
        access: how it was had.
        note: what the operator should know of that, or "".
    """

    def __init__(
        self, node: Node, connection: asyncssh.SSHClientConnection, greeting: Greeting
    ) -> None:
        self.node = node
        self.connection = connection
        self.access = access_of(connection, greeting)
        self.note = greeting.note
        self._is_cut = False
        self._tunnels: set[Tunnel] = set()
        self._listeners: set[asyncssh.SSHListener] = set()
        self._places = asyncio.Semaphore(_COMMANDS)

    @property
    def is_lost(self) -> bool:
        """Whether the connection is gone, by whosever doing."""
        return self._is_cut or self.connection.is_closed()

    async def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", deadline: float | None = 10
    ) -> Completed:
        """Run a command on the node and wait for its end.

        Args:
            argv: the command and its arguments; quoted for the shell there.
            stdin: what it may read, to the end.
            deadline: seconds to wait; None waits for ever.

        Raises:
            NodeError: `command` when it did not end in time (it is then hung up on), `ssh-lost`.
        """
        seconds = time_left(deadline)
        command = shlex.join(argv)
        try:
            async with asyncio.timeout(seconds), self._places:
                done = await self._ran(command, stdin)
        except TimeoutError:
            raise NodeError(
                Reason.COMMAND, f"{_short(argv)} did not end within {seconds_text(seconds)}"
            ) from None
        except asyncssh.ChannelOpenError as exc:
            raise not_opened(exc, _short(argv), is_lost=self.is_lost) from None
        except (OSError, asyncssh.Error) as exc:
            raise lost() from exc
        if done.returncode is None:
            raise lost(f"while {_short(argv)} was running")
        return Completed(done.returncode, _bytes(done.stdout), _bytes(done.stderr))

    async def stream(self, argv: Sequence[str]) -> tuple[Reader, Writer]:
        """Run a command that is spoken with: its standard output and input, as a stream.

        Raises:
            NodeError: it cannot be begun.
        """
        try:
            process = await self.connection.create_process(
                shlex.join(argv), encoding=None, stderr=asyncssh.DEVNULL
            )
        except asyncssh.ChannelOpenError as exc:
            raise not_opened(exc, _short(argv), is_lost=self.is_lost) from None
        except (OSError, asyncssh.Error) as exc:
            raise lost() from exc
        return Reader(process.stdout), Writer(process.stdin)

    async def open_unix(self, path: str) -> tuple[Reader, Writer]:
        """Connect to a Unix socket on the node (direct-streamlocal@openssh.com).

        Raises:
            NodeError: `no-forwarding` where sshd did not; it tells no more than that: a missing
                socket, one without permission and a forbidden forwarding look alike.
        """
        try:
            reader, writer = await self.connection.open_unix_connection(path, encoding=None)
        except asyncssh.ChannelOpenError as exc:
            raise socket_not_opened(exc, path, is_lost=self.is_lost) from None
        except (OSError, asyncssh.Error) as exc:
            raise lost() from exc
        return Reader(reader), Writer(writer)

    async def open_tcp(self, host: str, port: int) -> tuple[Reader, Writer]:
        """Connect to an address as the node sees it (direct-tcpip).

        Raises:
            NodeError: `refused`, `off`, `unreachable`, `name` as the node found, or
                `no-forwarding`.
        """
        try:
            reader, writer = await self.connection.open_connection(host, port, encoding=None)
        except asyncssh.ChannelOpenError as exc:
            raise not_opened(exc, f"{host} port {port}", is_lost=self.is_lost) from None
        except (OSError, asyncssh.Error) as exc:
            raise lost() from exc
        return Reader(reader), Writer(writer)

    async def serve_unix(self, local: str, opener: Opener) -> Tunnel:
        """Listen at a path here until the session ends; each connection gets its own far end."""
        tunnel = Tunnel(local, opener)
        await tunnel.listen()
        self._tunnels.add(tunnel)
        return tunnel

    async def forward_port(self, host: str, port: int) -> int:
        """Listen on a port of 127.0.0.1, which leads to an address as the node sees it.

        Returns:
            The port; it is open until the session ends.
        """
        try:
            listener = await self.connection.forward_local_port("127.0.0.1", 0, host, port)
        except (OSError, asyncssh.Error) as exc:
            raise lost() from exc
        self._listeners.add(listener)
        return listener.get_port()

    def cut(self) -> None:
        """End the connection without a word: whatever waits on it fails at once."""
        self._is_cut = True
        for tunnel in self._tunnels:
            tunnel.cut()
        self._tunnels.clear()
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        self.connection.abort()

    async def close(self) -> None:
        """Say goodbye and end the connection, whether the node answers or not."""
        for tunnel in self._tunnels:
            await tunnel.close()
        self._tunnels.clear()
        self.connection.close()
        with contextlib.suppress(TimeoutError, OSError, asyncssh.Error):
            async with asyncio.timeout(_FAREWELL):
                await self.connection.wait_closed()
        self.cut()

    async def _ran(self, command: str, stdin: bytes) -> asyncssh.SSHCompletedProcess:
        return await self.connection.run(command, input=stdin, encoding=None)


def _short(argv: Sequence[str]) -> str:
    """Name a command in a message: its program, not what may be secret or long."""
    words = (word for word in argv if word != "env" and "=" not in word)
    return f"`{next(words, 'a command')}`"


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""
