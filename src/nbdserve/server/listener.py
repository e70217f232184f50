"""Listening sockets: made, taken over, and removed again.

A Unix socket is bound under a temporary name, given its mode and owner, made to listen, and only
then renamed to its place: no client ever meets it half made, and a stale file of a killed server is
replaced by that same rename. A socket that answers is never replaced. At the end the file is
removed only if it is still ours.
"""

import contextlib
import errno
import grp
import os
import pwd
import socket
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from nbdserve.errors import ConfigError, DeviceError
from nbdserve.server.uri import tcp_uri, unix_uri
from nbdserve.settings import TcpListener, UnixListener

__all__ = ["Listener", "adopt", "listen"]

_BACKLOG = 512
_LONGEST_PATH = 107  # unix(7): 108 bytes with the NUL


@dataclass(slots=True)
class Listener:
    """A listening socket.

    Attributes:
        sock: non-blocking and listening.
        path: the socket file to remove at the end, if any.
        inode: of that file, so that another server's is never removed.
        folder: a private folder to remove at the end, if any.
    """

    sock: socket.socket
    path: Path | None = None
    inode: int = 0
    folder: Path | None = field(default=None)

    def uri(self, export: str) -> str:
        """Return the URI of an export here."""
        address = self.sock.getsockname()
        if self.sock.family == socket.AF_UNIX:
            return unix_uri(self.path or address, export)
        return tcp_uri(address[0], address[1], export)

    def close(self) -> None:
        """Stop listening and remove what was made for it."""
        self.sock.close()
        with contextlib.suppress(OSError):
            if self.path is not None and self.path.lstat().st_ino == self.inode:
                self.path.unlink()
        if self.folder is not None:
            with contextlib.suppress(OSError):
                self.folder.rmdir()


def listen(wanted: UnixListener | TcpListener) -> list[Listener]:
    """Listen as asked; a host name may have several addresses.

    Raises:
        ConfigError: the path is too long, or the owner does not exist.
        DeviceError: the address cannot be had; nothing is left behind.
    """
    if isinstance(wanted, TcpListener):
        return _listen_tcp(wanted)
    return [_listen_unix(wanted)]


def adopt(fd: int) -> Listener:
    """Take over a listening socket that was passed to this process.

    Raises:
        ConfigError: it is no listening stream socket.
    """
    try:
        sock = socket.socket(fileno=fd)
    except OSError as exc:
        raise ConfigError(f"file descriptor {fd} is no socket: {exc.strerror}") from exc
    listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if sock.type != socket.SOCK_STREAM or not listening:
        raise ConfigError(f"file descriptor {fd} is no listening stream socket")
    sock.setblocking(False)
    return Listener(sock)


def _listen_tcp(wanted: TcpListener) -> list[Listener]:
    try:
        found = socket.getaddrinfo(
            wanted.host, wanted.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as exc:
        raise DeviceError(f"{wanted.host}: {exc.strerror}; check --bind", exc.errno) from exc
    listeners: list[Listener] = []
    missing = None
    for family, _, _, _, address in dict.fromkeys(found):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
            sock.listen(_BACKLOG)
            sock.setblocking(False)
        except OSError as exc:
            sock.close()
            if exc.errno == errno.EADDRNOTAVAIL:  # localhost has ::1, this machine does not
                missing = exc
                continue
            for listener in listeners:
                listener.close()
            raise _cannot_listen(f"{address[0]} port {wanted.port}", exc) from exc
        listeners.append(Listener(sock))
    if not listeners:
        cause = missing or OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        raise _cannot_listen(f"{wanted.host} port {wanted.port}", cause) from missing
    return listeners


def _cannot_listen(where: str, exc: OSError) -> DeviceError:
    remedy = {
        errno.EADDRINUSE: "another server is there; choose another --port, or end it",
        errno.EACCES: "choose a --port over 1023, or run as root",
        errno.EADDRNOTAVAIL: "no interface has this address; check --bind",
    }.get(exc.errno or 0, "check --bind and --port")
    return DeviceError(f"cannot listen on {where}: {exc.strerror}; {remedy}", exc.errno)


def _listen_unix(wanted: UnixListener) -> Listener:
    folder = None
    path = wanted.path
    if path is None:
        folder = Path(tempfile.mkdtemp(prefix="nbdserve-"))
        path = folder / "nbd.sock"
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise ConfigError(f"socket path {path} is longer than {_LONGEST_PATH} bytes; shorten it")
    _refuse_if_taken(path)
    fresh = _temporary_name(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(os.fspath(fresh))
        _give_rights(fresh, wanted)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
        inode = fresh.stat().st_ino
        fresh.rename(path)
    except OSError as exc:
        sock.close()
        fresh.unlink(missing_ok=True)
        raise DeviceError(
            f"cannot listen on {path}: {exc.strerror}; check its folder and permissions", exc.errno
        ) from exc
    except BaseException:
        sock.close()
        fresh.unlink(missing_ok=True)
        raise
    return Listener(sock, path, inode, folder)


def _temporary_name(path: Path) -> Path:
    """Name the socket while it is being made; short, since socket paths are."""
    return path.with_name(f".{os.getpid() % 0xFFFF:x}")


def _refuse_if_taken(path: Path) -> None:
    """Raise unless there is nothing at `path`, or a socket that nobody answers on."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise DeviceError(
            f"cannot listen on {path}: it is no socket; choose another path", errno.EEXIST
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError:
            pass  # EAGAIN: its backlog is full, so it lives
    raise DeviceError(
        f"cannot listen on {path}: another server is there; choose another path, or end it",
        errno.EADDRINUSE,
    )


def _give_rights(path: Path, wanted: UnixListener) -> None:
    if wanted.owner is not None:
        user, group = _ids(wanted.owner)
        os.chown(path, user, group)
    if wanted.mode is not None:
        path.chmod(wanted.mode)


def _ids(owner: str) -> tuple[int, int]:
    """Look up `user[:group]`; -1 leaves that one as it is."""
    user, _, group = owner.partition(":")
    try:
        uid = -1 if not user else int(user) if user.isdigit() else pwd.getpwnam(user).pw_uid
        gid = -1 if not group else int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError as exc:
        raise ConfigError(f"no such socket owner {owner!r}: {exc.args[0]}") from exc
    return uid, gid
