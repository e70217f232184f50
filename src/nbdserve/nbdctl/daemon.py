"""Talking to a running daemon over its control socket. Blocks: nbdctl does one thing at a time."""

import argparse
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from nbdserve.control.codec import LONGEST_REPLY, LineReader, encode_request, parse_reply
from nbdserve.control.messages import Failure, FailureKind, Progress, Reply, Request
from nbdserve.errors import ConfigError, DeviceError, NbdserveError, ProtocolError

__all__ = ["add_control_option", "ask"]

_USUAL: Final = "/run/nbdserve/control.sock"
_VARIABLE: Final = "NBDSERVE_CONTROL"
_PATIENCE: Final = 600.0  # seconds without a word: opening an export may wait for a far mirror
_RECEIVE: Final = 256 << 10
_LONGEST_PATH: Final = 107  # unix(7): 108 bytes with the NUL
_USERS_OWN = frozenset(
    {FailureKind.ARGUMENT, FailureKind.EXPORT, FailureKind.COMMAND, FailureKind.REQUEST}
)


def add_control_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the daemon."""
    parser.add_argument(
        "--control", type=Path, metavar="PATH",
        help=f"the daemon's control socket (default ${_VARIABLE} or {_USUAL})",
    )  # fmt: skip


def ask(
    arguments: argparse.Namespace,
    command: str,
    given: Mapping[str, Any],
    *,
    on_progress: Callable[[Mapping[str, Any]], None] = lambda _: None,
) -> Mapping[str, Any]:
    """Have the daemon carry a command out.

    Args:
        arguments: the command line, with the control option.
        command: its name.
        given: its arguments.
        on_progress: called with what the daemon reports meanwhile.

    Returns:
        What came of it.

    Raises:
        ConfigError: the daemon finds something wrong as written.
        DeviceError: it could not do it, or there is no daemon, or no answer.
    """
    path = arguments.control or Path(os.environ.get(_VARIABLE) or _USUAL)
    with _connected(path) as sock:
        try:
            _send(sock, encode_request(Request(1, command, given)))
            lines = LineReader(LONGEST_REPLY)
            while isinstance(reply := _next_reply(sock, lines), Progress):
                on_progress(reply.facts)
        except TimeoutError:
            raise DeviceError(f"the daemon at {path} does not answer; see its log") from None
        except ProtocolError as exc:
            raise DeviceError(f"what answers at {path} is no control socket: {exc}") from exc
        except OSError as exc:
            if isinstance(exc, NbdserveError):
                raise
            raise _gone(path) from exc
    if reply is None:
        raise _gone(path)
    if isinstance(reply, Failure):
        wrong = ConfigError if reply.kind in _USERS_OWN else DeviceError
        raise wrong(reply.message)
    return reply.facts


def _send(sock: socket.socket, data: bytes) -> None:
    try:
        sock.sendall(data)
    except TimeoutError:
        raise
    except OSError:
        pass  # a daemon that refuses us has closed already; its reason is still to be read


def _next_reply(sock: socket.socket, lines: LineReader) -> Reply | None:
    begun = False
    while (line := lines.next_line()) is None:
        data = sock.recv(_RECEIVE)
        if not data and begun:
            raise ProtocolError("its answer is no line; is it the socket for NBD clients?")
        if not data:
            return None
        lines.receive_data(data)
        begun = True
    return parse_reply(line)


def _connected(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise ConfigError(f"socket path {path} is longer than {_LONGEST_PATH} bytes")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(_PATIENCE)
        sock.connect(os.fspath(path))
    except OSError as exc:
        sock.close()
        raise _cannot_connect(path, exc) from exc
    return sock


def _cannot_connect(path: Path, exc: OSError) -> DeviceError:
    if isinstance(exc, FileNotFoundError | NotADirectoryError):
        text = f"no daemon is at {path}; start nbdserve with --control, or name its socket here"
    elif isinstance(exc, ConnectionRefusedError):
        text = f"no daemon is at {path} any more; start it again, or name another socket"
    elif isinstance(exc, PermissionError):
        text = f"no permission to control the daemon at {path}; be root, or the user it runs as"
    else:
        text = f"cannot connect to {path}: {exc.strerror}; is it a control socket?"
    return DeviceError(text, exc.errno)


def _gone(path: Path) -> DeviceError:
    return DeviceError(f"the daemon at {path} closed the connection; see its log")
