"""What is seen of a node while ssh is being set up: how far it got, and which key it showed."""

import enum

import asyncssh

from minicloud.errors import NodeError
from minicloud.ssh.hostkeys import HostKeys, KnownKey

__all__ = ["Greeting", "Phase"]


class Phase(enum.IntEnum):
    """How far a node has come."""

    REACHING = 0  # nothing came back yet
    CONNECTED = 1  # TCP is there; no ssh has spoken
    KEYS = 2  # it showed its host key
    LOGIN = 3  # it proved to have that key and may be told who we are
    IN = 4


class Greeting(asyncssh.SSHClient):
    """Judges the host key and notes how far the node has come.

    Args:
        keys: what is known.
        known: of this host.
        host: the name its keys are known by.
        port: of its sshd.

    Attributes:
        phase: how far it came.
        refusal: why its host key was refused, if it was.
        note: that a new host key was accepted, if one was.
        known: the keys of this host.
        offered: the last of our own keys that was offered: the one that let us in, if one did.
    """

    def __init__(self, keys: HostKeys, known: list[KnownKey], host: str, port: int) -> None:
        self.phase = Phase.REACHING
        self.refusal: NodeError | None = None
        self.note = ""
        self.known = known
        self.offered: asyncssh.SSHKeyPair | None = None
        self._keys = keys
        self._host = host
        self._port = port
        self._new: asyncssh.SSHKey | None = None

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self.phase = Phase.CONNECTED
        choose = conn.public_key_auth_requested

        async def noted() -> asyncssh.SSHKeyPair | None:
            self.offered = await choose()
            return self.offered

        # asyncssh asks itself here, and tells nobody which of several keys it was
        conn.public_key_auth_requested = noted  # type: ignore[method-assign]

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        self.phase = Phase.KEYS
        try:
            self._keys.judge(key, self._host, self._port, self.known)
        except NodeError as exc:
            self.refusal = exc
            return False
        if not any(entry.key == key for entry in self.known):
            self._new = key
        return True

    def begin_auth(self, username: str) -> None:
        # only now has it proved that the key is its own
        self.phase = Phase.LOGIN
        if self._new is not None:
            try:
                self._keys.accept(self._new, self._host, self._port)
            except NodeError as exc:
                self.refusal = exc
                raise asyncssh.HostKeyNotVerifiable(exc.message) from exc
            self.note = f"new host key {self._new.get_fingerprint()}"

    def auth_completed(self) -> None:
        self.phase = Phase.IN
