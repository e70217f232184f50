"""How the server runs, apart from what it exports: plain values, whoever wrote them.

The command line and the TOML configuration both end here.
"""

import enum
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

__all__ = [
    "DEFAULT_PORT",
    "ServerSettings",
    "TcpListener",
    "TlsMode",
    "TlsSettings",
    "UnixListener",
]

DEFAULT_PORT: Final = 10809
"""Registered for NBD with IANA."""


@dataclass(frozen=True, slots=True)
class UnixListener:
    """A Unix stream socket to listen on.

    Attributes:
        path: its path; None makes a private one in a folder of its own.
        mode: permission bits; None leaves what the umask gives.
        owner: `user`, `user:group` or `:group`, names or numbers; None leaves it as it is.
    """

    path: Path | None = None
    mode: int | None = None
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class TcpListener:
    """A TCP address to listen on; every address the host name has."""

    host: str = "localhost"
    port: int = DEFAULT_PORT


class TlsMode(enum.StrEnum):
    """Whether clients may or must speak TLS: the spec's NOTLS, SELECTIVETLS and FORCEDTLS."""

    OFF = "off"
    ON = "on"
    REQUIRE = "require"


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """How clients speak TLS.

    Attributes:
        mode: None is `on` if there are credentials, else `off`.
        certificates: a folder with server-cert.pem, server-key.pem and ca-cert.pem.
        verify_peer: let in only clients with a certificate of that authority.
        psk: a file of pre-shared keys, `name:key` in hexadecimal digits a line.
    """

    mode: TlsMode | None = None
    certificates: Path | None = None
    verify_peer: bool = False
    psk: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Everything about a server but its exports.

    Attributes:
        listeners: where to listen; none means what `--run`, `--single` or systemd bring.
        single: serve one client on stdin and stdout.
        run: a shell command to run while serving.
        pid_file: where to write the process id once listening.
        exit_with_parent: end when the parent process does.
        print_uri: print the URIs of all exports on stdout once listening.
        handshake_timeout: seconds.
        max_connections: clients at once.
        drain_timeout: seconds requests in flight get at shutdown.
        max_in_flight: requests a connection.
        max_in_flight_bytes: of their data, a connection.
        control: a Unix socket for nbdctl.
        control_mode: its permission bits; writable for its group lets that group control us.
        control_owner: as a `UnixListener` has it.
        state_dir: a folder in which exports that are added while serving are kept.
        overlay_dir: a folder for the overlays of guests, made when it does not exist.
        workers: processes that serve; more than one only what nobody writes to.
        tls: how clients speak TLS.
    """

    listeners: tuple[UnixListener | TcpListener, ...] = ()
    single: bool = False
    run: str | None = None
    pid_file: Path | None = None
    exit_with_parent: bool = False
    print_uri: bool = False
    handshake_timeout: float = 10.0
    max_connections: int = 1000
    drain_timeout: float = 30.0
    max_in_flight: int = 256
    max_in_flight_bytes: int = 8 << 20
    control: Path | None = None
    control_mode: int = 0o600
    control_owner: str | None = None
    state_dir: Path | None = None
    overlay_dir: Path | None = None
    workers: int = 1
    tls: TlsSettings = field(default=TlsSettings())
