"""Nodes without a machine: ssh servers in this process, and sockets that behave as broken ones do.

A node runs what it is told with /bin/sh and forwards to real Unix sockets, if it forwards at all.
"""

import asyncio
import contextlib
import functools
import os
import signal
import socket
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh

from minicloud.model.inventory import Inventory, Node
from minicloud.ssh.hostkeys import HostKeys, Policy

__all__ = ["Faults", "Home", "black_hole", "free_port", "serving", "talking"]


_GRACE = 10  # seconds; one that hears nothing is killed then


@functools.cache
def key(name):
    """Make a key, once a run: `client`, or a host's."""
    return asyncssh.generate_private_key("ssh-ed25519", comment=name)


@dataclass
class Faults:
    """What is wrong with a node.

    Attributes:
        lets_in: the client's key is accepted.
        forwards: sshd opens Unix sockets and TCP for us.
        has_shell: commands are run.
        host_key: name of the key it shows.
        path: PATH of its commands.
    """

    lets_in: bool = True
    forwards: bool = True
    has_shell: bool = True
    host_key: str = "host"
    path: str = os.environ["PATH"]
    began: asyncio.Event = field(default_factory=asyncio.Event)
    commands: list = field(default_factory=list)
    logins: int = 0
    connections: list = field(default_factory=list)
    shells: list = field(default_factory=list)


class _Server(asyncssh.SSHServer):
    def __init__(self, faults):
        self.faults = faults

    def connection_made(self, conn):
        self.faults.connections.append(conn)

    def begin_auth(self, username):
        return True

    def public_key_auth_supported(self):
        return True

    def validate_public_key(self, username, key_shown):
        ours = key("client").export_public_key()
        return self.faults.lets_in and key_shown.export_public_key().split()[:2] == ours.split()[:2]

    def auth_completed(self):
        self.faults.logins += 1

    def unix_connection_requested(self, dest_path):
        if not self.faults.forwards:  # the words of OpenSSH 9.2
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "open failed")
        return True

    def connection_requested(self, dest_host, dest_port, orig_host, orig_port):
        return self.faults.forwards


async def _run(faults, process):
    faults.commands.append(process.command)
    faults.began.set()
    if not faults.has_shell:
        process.exit(1)
        return
    shell = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", process.command, env={"PATH": faults.path},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    faults.shells.append(shell)
    feeding = asyncio.create_task(_carry(process.stdin, shell.stdin))
    try:
        await asyncio.gather(
            _carry(shell.stdout, process.stdout), _carry(shell.stderr, process.stderr)
        )
        process.exit(await shell.wait())
    finally:
        feeding.cancel()
        await _end(shell)


async def _end(shell):
    """End a shell and what it began: asyncio waits for whoever holds its pipes.

    It may clean up, as sshd kills nothing of a client that is lost.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        if shell.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(shell.wait(), _GRACE)


async def _carry(reader, writer):
    with contextlib.suppress(OSError, asyncssh.Error):
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
    if isinstance(writer, asyncio.StreamWriter):  # a client that is lost has ended its input too
        writer.close()


@contextlib.asynccontextmanager
async def serving(faults=None, *, port=0, host_key=None):
    """Serve a node; gives its port."""
    faults = faults or Faults()
    shown = host_key or key(faults.host_key)
    server = await asyncssh.create_server(
        lambda: _Server(faults), "127.0.0.1", port, server_host_keys=[shown],
        process_factory=functools.partial(_run, faults), encoding=None,
    )  # fmt: skip
    try:
        yield server.get_port()
    finally:
        server.close()
        for connection in faults.connections:
            connection.abort()
        for shell in faults.shells:
            await _end(shell)
        await server.wait_closed()


@contextlib.contextmanager
def black_hole():
    """Listen and never answer, as a hung sshd does; gives the port.

    The connections are left in the kernel's queue.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield listener.getsockname()[1]


@contextlib.asynccontextmanager
async def talking(greeting):
    """Say something that is no ssh and hang up; gives the port."""

    async def hang_up(reader, writer):
        writer.write(greeting)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


def free_port():
    """Return a port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Home:
    """What an operator has: a key, an ssh_config, known_hosts.

    Args:
        folder: for all of it.
        policy: for new host keys.
    """

    def __init__(self, folder, policy=Policy.ACCEPT_NEW):
        self.folder = Path(folder)
        self.key = self.folder / "id"
        self.key.write_bytes(key("client").export_private_key())
        self.known = self.folder / "users_known_hosts"
        self.own = self.folder / "state" / "known_hosts"
        self.config = self.folder / "ssh_config"
        self.write_config()
        self.keys = HostKeys(self.own, policy)

    def write_config(self, text=""):
        """Write an ssh_config which reads nothing of this machine's."""
        self.config.write_text(
            f"{text}\nHost *\n  UserKnownHostsFile {self.known}\n  GlobalKnownHostsFile none\n"
            "  IdentityAgent none\n"
        )

    def trust(self, port, name="host"):
        """Write a host key to the user's own known_hosts."""
        words = key(name).export_public_key().decode().split()
        with self.known.open("a") as file:
            file.write(f"[127.0.0.1]:{port} {words[0]} {words[1]}\n")

    def node(self, port, name="ham1", **more):
        """Make a node that listens here."""
        values = {"host": "127.0.0.1", "port": port, "user": "root", "key": self.key}
        return Node(name=name, **(values | more))

    def inventory(self, *nodes):
        """Make an inventory of nodes."""
        return Inventory(
            file=None, nodes={node.name: node for node in nodes}, ssh_config=self.config
        )
