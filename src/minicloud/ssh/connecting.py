"""Connecting: a node of the inventory → a Session, or a NodeError that says exactly why not.

asyncssh reads ssh_config; the sockets, the host keys and the jump hosts are ours: so that each step
has its own time and its own error, jump hosts are held to the same rules as nodes, and one
connection to a jump host serves all nodes behind it.

At most `fan_out` logins are under way at once. A node that is merely silent holds none of these
places, or thirty dead nodes would keep the rest waiting.
"""

import asyncio
import logging
import random
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import asyncssh

from minicloud.deadline import time_left
from minicloud.errors import NodeError, Reason, UsageError
from minicloud.model.inventory import Node
from minicloud.ssh.diagnosing import login_failure, login_silence, via_jump
from minicloud.ssh.greeting import Greeting, Phase
from minicloud.ssh.hostkeys import GLOBAL_FILES, USER_FILES, HostKeys
from minicloud.ssh.reaching import reach
from minicloud.ssh.session import Session
from minicloud.tasks import Shared

__all__ = ["Connector"]

logger = logging.getLogger(__name__)

# ssh(1)'s ServerAlive settings, for those who have none: a dead node is noticed within 15 s.
_ALIVE_INTERVAL: Final = 5
_ALIVE_COUNT: Final = 2
_AGAIN: Final = (0.1, 0.3)  # seconds before the one retry, so that a burst spreads


@dataclass(frozen=True, slots=True)
class _Way:
    """A node as ssh_config has it."""

    node: Node
    options: asyncssh.SSHClientConnectionOptions
    ours: Mapping[str, Any]

    @property
    def place(self) -> str:
        return f"{self.options.host} port {self.options.port}"

    @property
    def jumps(self) -> tuple[str, ...]:
        """The jump hosts, the first one first."""
        tunnel = self.options.tunnel
        return tuple(tunnel.split(",")) if isinstance(tunnel, str) else ()

    @property
    def is_reached_by_asyncssh(self) -> bool:
        """Whether the host or the way is not settled before asyncssh connects."""
        options = self.options
        return bool(
            options.proxy_command
            or options.canonicalize_hostname
            or options.config.has_match_final()
        )


class Connector:
    """Makes the connections of a run.

    Args:
        ssh_config: the file to honour; None is the user's own.
        keys: known host keys.
        connect: seconds for name and TCP.
        login: seconds from there until the user is in.
        fan_out: logins at once.
    """

    def __init__(
        self,
        *,
        ssh_config: Path | None = None,
        keys: HostKeys | None = None,
        connect: float = 3,
        login: float = 5,
        fan_out: int = 32,
    ) -> None:
        self._ssh_config = ssh_config
        self._keys = HostKeys.of_environment() if keys is None else keys
        self._connect = connect
        self._login = login
        self._places = asyncio.Semaphore(fan_out)
        self._jumps: Shared[tuple[str, ...], Session] = Shared()

    async def connect(self, node: Node) -> Session:
        """Log in to a node.

        Raises:
            NodeError: it cannot be had.
            UsageError: ssh_config cannot be understood.
        """
        return await self._session(node, None, ())

    async def close(self) -> None:
        """Close the connections to jump hosts; the sessions through them end too."""
        for session in await self._jumps.end():
            await session.close()

    async def _session(self, node: Node, via: Session | None, behind: tuple[str, ...]) -> Session:
        way = _way(node, self._ssh_config)
        if via is None and way.jumps:
            via = await self._jump(way.jumps, (*behind, node.host))
        try:
            return await self._once(way, via)
        except NodeError as exc:
            if not _is_worth_a_retry(exc):
                raise _with_remedy(exc, node) from exc.__cause__
        low, high = _AGAIN
        await asyncio.sleep(random.uniform(low, high))  # noqa: S311 -- no secret
        try:
            return await self._once(way, via)
        except NodeError as exc:
            raise _with_remedy(exc, node) from exc.__cause__

    async def _jump(self, hops: tuple[str, ...], behind: tuple[str, ...]) -> Session:
        """Return the connection to the last of some jump hosts, through those before it."""
        *before, last = hops
        node = _jump_node(last)
        if node.host in behind:
            raise UsageError(f"ssh_config leads in a circle: {' → '.join((*behind, node.host))}")

        async def connected() -> Session:
            via = await self._jump(tuple(before), behind) if before else None
            return await self._session(node, via, behind)

        try:
            return await self._jumps.get(hops, connected)
        except NodeError as exc:
            raise via_jump(exc, last) from exc.__cause__

    async def _once(self, way: _Way, via: Session | None) -> Session:
        if via is not None:
            async with self._places:
                return await self._logged_in(way, tunnel=via.connection)
        if way.is_reached_by_asyncssh:
            async with self._places:
                return await self._logged_in(way)
        sock = await reach(
            way.options.host,
            way.options.port,
            family=int(way.options.family or 0),
            seconds=way.options.connect_timeout or self._connect,
        )
        try:
            async with self._places:
                return await self._logged_in(way, sock=sock)
        except BaseException:
            sock.close()
            raise

    async def _logged_in(
        self,
        way: _Way,
        *,
        tunnel: asyncssh.SSHClientConnection | None = None,
        sock: socket.socket | None = None,
    ) -> Session:
        greeting, checks = self._checks(way)
        if sock is not None:
            greeting.phase = Phase.CONNECTED
        seconds = time_left(self._login if sock else self._connect + self._login) or 0.0
        try:
            async with asyncio.timeout(seconds):
                connection = await asyncssh.connect(
                    **way.ours, **checks, tunnel=tunnel or (), sock=sock
                )
        except TimeoutError:
            raise login_silence(greeting, way.place, seconds) from None
        except (OSError, asyncssh.Error) as exc:
            logger.debug("no login place=%s phase=%s", way.place, greeting.phase, exc_info=exc)
            raise login_failure(exc, greeting, way.options.username, way.place) from None
        return Session(way.node, connection, greeting)

    def _checks(self, way: _Way) -> tuple[Greeting, dict[str, Any]]:
        """Make what judges the node's host key, and what asyncssh has to know for it."""
        options = way.options
        host = options.host_key_alias or options.host
        known = self._keys.known(host, options.port, _known_hosts_files(options))
        greeting = Greeting(self._keys, known, host, options.port)
        authorities = [entry.key for entry in known if entry.marker == "cert-authority"]
        revoked = [entry.key for entry in known if entry.marker == "revoked"]
        checks: dict[str, Any] = {
            "client_factory": lambda: greeting,
            # plain keys are left to Greeting, which can tell a new one from a changed one
            "known_hosts": ([], authorities, revoked if authorities else [], [], [], [], []),
        }
        if not options.config.get("HostKeyAlgorithms"):
            plain = [entry.key for entry in known if not entry.marker]
            checks["server_host_key_algs"] = _algorithms(plain, has_authority=bool(authorities))
        return greeting, checks


def _way(node: Node, ssh_config: Path | None) -> _Way:
    ours: dict[str, Any] = {
        "host": node.host,
        "port": () if node.port is None else node.port,
        "username": () if node.user is None else node.user,
        "config": () if ssh_config is None else [str(ssh_config)],
        "client_keys": () if node.key is None else [str(node.key)],
        "ignore_encrypted": True,  # nobody can be asked; the agent may have it
        "login_timeout": 0,  # ours counts
    }
    try:
        options = asyncssh.SSHClientConnectionOptions(**ours)
    except asyncssh.ConfigParseError as exc:
        raise UsageError(str(exc), file=ssh_config) from exc
    except (OSError, asyncssh.KeyImportError) as exc:
        if node.key is None:
            raise UsageError(f"ssh's configuration: {exc}", file=ssh_config) from exc
        raise NodeError(
            Reason.AUTH, f"{node.key}: {_plain(exc)}", "correct `key` in the inventory"
        ) from exc
    ours["connect_timeout"] = None
    if not options.keepalive_interval:
        ours |= {"keepalive_interval": _ALIVE_INTERVAL, "keepalive_count_max": _ALIVE_COUNT}
    return _Way(node, options, ours)


def _known_hosts_files(options: asyncssh.SSHClientConnectionOptions) -> list[str]:
    """Return the files ssh_config names, or those OpenSSH reads by itself; `none` names none."""
    chosen: list[str] = []
    for keyword, usual in (
        ("UserKnownHostsFile", USER_FILES),
        ("GlobalKnownHostsFile", GLOBAL_FILES),
    ):
        chosen += cast("Sequence[str]", options.config.get(keyword, usual))
    return chosen


def _jump_node(hop: str) -> Node:
    """Read `[user@]host[:port]` as in ssh_config(5), ProxyJump."""
    user, at, place = hop.rpartition("@")
    host, colon, port = place.rpartition(":")
    if not colon or not port.isdigit():
        host, port = place, ""
    return Node(
        name=hop,
        host=host.strip("[]"),
        user=user if at else None,
        port=int(port) if port else None,
    )


def _algorithms(known: list[asyncssh.SSHKey], *, has_authority: bool) -> list[str]:
    """Ask for certificates where an authority is known, for the known keys' types, for the rest."""
    certificates = [f"{alg}-cert-v01@openssh.com" for alg in _ALGORITHMS if has_authority]
    types = {alg.decode() for key in known for alg in key.sig_algorithms}
    first = [alg for alg in _ALGORITHMS if alg in types]
    return [*certificates, *dict.fromkeys((*first, *_ALGORITHMS))]


# asyncssh's own order.
_ALGORITHMS: Final = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp521",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp256",
    "rsa-sha2-256",
    "rsa-sha2-512",
)


def _is_worth_a_retry(exc: NodeError) -> bool:
    """Whether sshd threw the connection out before it spoke, as MaxStartups does in a burst."""
    return exc.reason is Reason.NO_SSH and "before ssh spoke" in exc.message


def _with_remedy(exc: NodeError, node: Node) -> NodeError:
    if exc.reason is not Reason.OFF or exc.remedy or node.mac is None:
        return exc
    return NodeError(exc.reason, exc.message, f"wake it: minicloud on {node.name}")


def _plain(exc: Exception) -> str:
    return (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
