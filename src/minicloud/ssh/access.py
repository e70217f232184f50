"""What is known of a login that worked: for whoever wants to see each step of it."""

from dataclasses import dataclass

import asyncssh

from minicloud.ssh.greeting import Greeting

__all__ = ["Access", "access_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How a node was come to.

    Attributes:
        address: it has; "" where a ProxyCommand leads there.
        port: of its sshd.
        software: what sshd calls itself, `OpenSSH_9.2p1 Debian-2`.
        host_key: type and fingerprint of what it showed.
        known_at: `FILE:LINE` where that key is known; "" for one that was new, or is certified.
        user: on the node.
        key: that let us in: whose and what it is called; "" where it was no key.
    """

    address: str
    port: int
    software: str
    host_key: str
    known_at: str
    user: str
    key: str


def access_of(connection: asyncssh.SSHClientConnection, greeting: Greeting) -> Access:
    """Tell of a connection that is in."""
    address, port, *_ = connection.get_extra_info("peername") or ("", 0)
    shown = connection.get_server_host_key()
    entry = next((one for one in greeting.known if shown is not None and one.key == shown), None)
    version = str(connection.get_extra_info("server_version") or "")
    return Access(
        address=address,
        port=port,
        software=version.removeprefix("SSH-2.0-"),
        host_key="" if shown is None else f"{shown.get_algorithm()} {shown.get_fingerprint()}",
        known_at="" if entry is None else f"{entry.file}:{entry.line}",
        user=str(connection.get_extra_info("username") or ""),
        key="" if greeting.offered is None else _named(greeting.offered),
    )


def _named(key: asyncssh.SSHKeyPair) -> str:
    whose = "of the agent" if key.get_key_type() == "agent" else "of a file"
    comment = key.get_comment(errors="replace") or ""
    return f"{key.get_algorithm()} key {whose}{f' ({comment})' if comment else ''}"
