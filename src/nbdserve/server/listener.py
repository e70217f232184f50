"""Listening sockets: made, taken over, and removed again.

A Unix socket gets its mode and owner before it listens, so no client it is not meant for ever gets
in. A stale file of a killed server is replaced; a socket that answers never is, nor anything that
is no socket. At the end the file is removed only if it is still ours.
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
        tls: only TLS is spoken here, so its URIs say so.
    """

    sock: socket.socket
    path: Path | None = None
    inode: int = 0
    folder: Path | None = field(default=None)
    tls: bool = False

    def uri(self, export: str) -> str:
        """Return the URI of an export here."""
        address = self.sock.getsockname()
        if self.sock.family == socket.AF_UNIX:
            return unix_uri(self.path or address, export, tls=self.tls)
        return tcp_uri(address[0], address[1], export, tls=self.tls)

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
    except UnicodeError as exc:  # of the idna codec: an empty label, or one over 63 bytes
        raise ConfigError(f"{wanted.host!r} is no host name; check --bind") from exc
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
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    bound = False
    try:
        _check_length(path, "set TMPDIR to a shorter folder" if folder else "shorten it")
        _make_way(path)
        bound = _bind(sock, path)
        _give_rights(path, wanted)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
        return Listener(sock, path, path.lstat().st_ino, folder)
    except BaseException as exc:
        sock.close()
        if bound:
            path.unlink(missing_ok=True)
        if folder is not None:
            folder.rmdir()
        if isinstance(exc, OSError) and not isinstance(exc, DeviceError):
            raise DeviceError(
                f"cannot listen on {path}: {exc.strerror}; check its folder and permissions",
                exc.errno,
            ) from exc
        raise


def _check_length(path: Path, remedy: str) -> None:
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise ConfigError(f"socket path {path} is longer than {_LONGEST_PATH} bytes; {remedy}")


def _bind(sock: socket.socket, path: Path) -> bool:
    """Bind so that nobody may connect before the socket has the rights it is to have.

    Linux gives the file the mode that the socket has, less the umask, which is the whole process's.
    """
    os.fchmod(sock.fileno(), 0)
    sock.bind(os.fspath(path))
    return True


def _make_way(path: Path) -> None:
    """Remove a socket that nobody answers on; raise for anything else at `path`."""
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
            path.unlink(missing_ok=True)
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
        try:
            os.chown(path, user, group)
        except PermissionError as exc:
            raise DeviceError(
                f"cannot give {path} to {wanted.owner}: {exc.strerror}; run as root, or name a "
                "group this user is in",
                exc.errno,
            ) from exc
    path.chmod(0o777 & ~_umask() if wanted.mode is None else wanted.mode)


def _umask() -> int:
    """Return the umask as proc(5) tells it; umask(2) would change it for all threads meanwhile."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o077


def _ids(owner: str) -> tuple[int, int]:
    """Look up `user[:group]`; -1 leaves that one as it is."""
    user, _, group = owner.partition(":")
    try:
        uid = -1 if not user else int(user) if _is_id(user) else pwd.getpwnam(user).pw_uid
        gid = -1 if not group else int(group) if _is_id(group) else grp.getgrnam(group).gr_gid
    except KeyError as exc:
        raise ConfigError(
            f"socket owner {owner!r}: no such user or group; write USER[:GROUP], names or numbers"
        ) from exc
    return uid, gid


def _is_id(text: str) -> bool:
    return text.isdecimal() and len(text) < 10  # uid_t has 32 bits
