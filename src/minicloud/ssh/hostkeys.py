"""Whose host keys are known: minicloud's own file, and those OpenSSH reads.

A new key is accepted once, into minicloud's own file; the user's is read and never written. A host
of which any plain key is known has to show one of them: that it shows one of another type is no
reason to accept it, since whoever sits in between chooses what to show. (OpenSSH's accept-new
would.) `@cert-authority` and `@revoked` mean what sshd(8) says.

Policy: `accept-new`, or `strict` where MINICLOUD_HOST_KEYS says so.
"""

import enum
import fcntl
import functools
import logging
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncssh
import platformdirs

from minicloud.errors import NodeError, Reason, UsageError

__all__ = ["GLOBAL_FILES", "USER_FILES", "HostKeys", "KnownKey", "Policy"]

logger = logging.getLogger(__name__)

_PORT: Final = 22
_MARKERS: Final = ("", "@cert-authority", "@revoked")

# What OpenSSH reads where ssh_config says nothing: ssh_config(5).
USER_FILES: Final = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
GLOBAL_FILES: Final = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")


class Policy(enum.StrEnum):
    """What is done about a host of which no key is known."""

    ACCEPT_NEW = "accept-new"
    STRICT = "strict"


@dataclass(frozen=True, slots=True)
class KnownKey:
    """One key in one known_hosts file.

    Attributes:
        key: the key.
        marker: "", `cert-authority` or `revoked`.
        file: it stands in.
        line: number of the line, from 1.
        name: the host as the line has it: `ham1`, `[ham1]:2222`.
    """

    key: asyncssh.SSHKey
    marker: str
    file: Path
    line: int
    name: str


@dataclass(frozen=True, slots=True)
class _Line:
    file: Path
    number: int
    marker: str
    hosts: str
    key: str


class HostKeys:
    """The keys known in a run.

    Args:
        own: minicloud's file; it need not be there.
        policy: for hosts of which no key is known.
    """

    def __init__(self, own: Path, policy: Policy = Policy.ACCEPT_NEW) -> None:
        self.own = own
        self.policy = policy

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> "HostKeys":
        """Take the file of MINICLOUD_KNOWN_HOSTS and the policy of MINICLOUD_HOST_KEYS.

        Raises:
            UsageError: there is no such policy.
        """
        named = environment.get("MINICLOUD_KNOWN_HOSTS")
        own = Path(named) if named else platformdirs.user_state_path("minicloud") / "known_hosts"
        wanted = environment.get("MINICLOUD_HOST_KEYS", Policy.ACCEPT_NEW)
        try:
            return cls(own, Policy(wanted))
        except ValueError:
            raise UsageError(
                f"MINICLOUD_HOST_KEYS={wanted}: it may be {' or '.join(Policy)}"
            ) from None

    def known(self, host: str, port: int, files: Iterable[str]) -> list[KnownKey]:
        """Look a host up in minicloud's own file and in others.

        A host on a port of its own that is not known there may show a key known of port 22, as
        with OpenSSH; then that is all it may show.

        Args:
            host: name, address or HostKeyAlias.
            port: of its sshd.
            files: besides our own; those that are not there are passed over.
        """
        lines = [line for file in (self.own, *map(_expanded, files)) for line in _lines(file)]
        name = _name(host, port)
        found = list(_matching(lines, name))
        return found if found or name == host else list(_matching(lines, host))

    def judge(
        self, shown: asyncssh.SSHKey, host: str, port: int, known: Sequence[KnownKey]
    ) -> None:
        """Raise NodeError unless the key that a host shows is known, or new and acceptable."""
        for entry in known:
            if entry.marker == "revoked" and entry.key == shown:
                raise NodeError(
                    Reason.KEY_CHANGED,
                    f"its host key {_told(shown)} is revoked by {entry.file}:{entry.line}",
                    "give the node a new host key",
                )
        plain = [entry for entry in known if not entry.marker]
        if any(entry.key == shown for entry in plain):
            return
        here = [entry for entry in plain if entry.name == _name(host, port)]
        if here:
            raise _changed(here, shown)
        if self.policy is Policy.STRICT:
            raise NodeError(
                Reason.KEY_NEW,
                f"its host key is not known: {_told(shown)}",
                "compare it at the node, then trust it: echo "
                f"{shlex.quote(self._line(host, port, shown))} >> {shlex.quote(str(self.own))}",
            )

    def accept(self, shown: asyncssh.SSHKey, host: str, port: int) -> None:
        """Append a key to our own file; whoever does so at the same time waits its turn.

        Raises:
            NodeError: it cannot be written; then the key is not accepted either.
        """
        line = self._line(host, port, shown)
        try:
            self.own.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(self.own, "a+", opener=_private) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.seek(0)
                there = file.read()
                if line not in there.splitlines():
                    file.write("" if there.endswith("\n") or not there else "\n")
                    file.write(f"{line}\n")
        except OSError as exc:
            raise NodeError(
                Reason.KEY_NEW,
                f"its host key {_told(shown)} is new and cannot be kept: {self.own}: "
                f"{exc.strerror}",
                "name another file in MINICLOUD_KNOWN_HOSTS",
            ) from exc
        logger.info("accepted a new host key host=%s key=%s", _name(host, port), _told(shown))

    @staticmethod
    def _line(host: str, port: int, key: asyncssh.SSHKey) -> str:
        words = key.export_public_key().decode().split()
        return " ".join([_name(host, port), *words[:2]])


def _changed(known: Sequence[KnownKey], shown: asyncssh.SSHKey) -> NodeError:
    """Say what was known where, preferably of the same type as what is shown now."""
    alike = [entry for entry in known if entry.key.algorithm == shown.algorithm]
    was = (alike or list(known))[0]
    return NodeError(
        Reason.KEY_CHANGED,
        f"host key CHANGED: {was.file}:{was.line} has {_told(was.key)}, the node shows "
        f"{_told(shown)}",
        "somebody may be in between; if the node was installed anew: "
        f"ssh-keygen -R {shlex.quote(was.name)} -f {shlex.quote(str(was.file))}",
    )


def _told(key: asyncssh.SSHKey) -> str:
    return f"{key.get_algorithm()} {key.get_fingerprint()}"


def _name(host: str, port: int) -> str:
    return host if port == _PORT else f"[{host}]:{port}"


def _expanded(name: str) -> Path:
    return Path(name).expanduser()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _lines(file: Path) -> tuple[_Line, ...]:
    try:
        at = file.stat()
        return _read(file, at.st_mtime_ns, at.st_size)
    except OSError:
        return ()


@functools.lru_cache(maxsize=64)
def _read(file: Path, _changed_at: int, _size: int) -> tuple[_Line, ...]:
    """Split a file into its lines; a hundred nodes look into the same few."""
    found = []
    for number, text in enumerate(file.read_text(errors="replace").splitlines(), 1):
        words = text.split(None, 4)
        marker = words.pop(0) if text.lstrip().startswith("@") else ""
        if marker in _MARKERS and len(words) >= 3 and not words[0].startswith("#"):
            hosts = words[0] if words[0].startswith("|") else words[0].lower()
            found.append(_Line(file, number, marker[1:], hosts, " ".join(words[1:3])))
    return tuple(found)


def _matching(lines: Iterable[_Line], name: str) -> Iterable[KnownKey]:
    """Give the keys of the lines that speak of a host; a line that makes no sense speaks of none.

    Decoding a key takes long in a file of thousands; only lines that may match get that far.
    """
    low = name.lower()
    for line in lines:
        if low not in line.hosts and not any(char in line.hosts for char in "*?|!"):
            continue
        try:
            keys = asyncssh.import_known_hosts(f"{line.hosts} {line.key}").match(low, "", None)[0]
        except ValueError:
            logger.debug("not understood file=%s line=%d", line.file, line.number)
            continue
        for key in keys:
            yield KnownKey(key, line.marker, line.file, line.number, name)
