"""The servers that are compared: each serves one raw file on a Unix socket, as a child process."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CONTENDERS", "Contender", "serving"]


@dataclass(frozen=True, slots=True)
class Contender:
    """One server: its name, and its command line for an image, a socket and a scratch folder."""

    name: str
    argv: Callable[[Path, Path, Path], list[str]]
    export: str = ""


def _nbdserve(image: Path, sock: Path, _scratch: Path) -> list[str]:
    return [sys.executable, "-m", "nbdserve", "-U", str(sock), "file", str(image)]


def _nbdkit(image: Path, sock: Path, _scratch: Path) -> list[str]:
    return ["nbdkit", "-f", "-U", str(sock), "file", str(image)]


def _qemu_nbd(image: Path, sock: Path, _scratch: Path) -> list[str]:
    return ["qemu-nbd", "-t", "-e", "64", "-f", "raw", "-k", str(sock), str(image)]


def _nbd_server(image: Path, sock: Path, scratch: Path) -> list[str]:
    config = scratch / "nbd-server.conf"
    config.write_text(
        f"[generic]\nunixsock = {sock}\nlistenaddr = 127.0.0.1\nport = 0\n"
        f"[disk]\nexportname = {image}\ntrim = true\nflush = true\nfua = true\n"
    )
    return ["nbd-server", "-d", "-C", str(config)]


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("nbdserve", _nbdserve),
        Contender("nbdkit", _nbdkit),
        Contender("qemu-nbd", _qemu_nbd),
        Contender("nbd-server", _nbd_server, "disk"),
    )
}


@contextlib.contextmanager
def serving(contender: Contender, image: Path, scratch: Path) -> Iterator[tuple[str, int]]:
    """Run a server; gives the URI of its export and its process id."""
    sock = scratch / f"{contender.name}.sock"
    sock.unlink(missing_ok=True)
    with (scratch / f"{contender.name}.log").open("ab") as log:
        process = subprocess.Popen(
            contender.argv(image, sock, scratch), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        _wait(process, sock)
        yield f"nbd+unix:///{contender.export}?socket={sock}", process.pid
    finally:
        process.terminate()
        process.wait(30)


def _wait(process: subprocess.Popen[bytes], sock: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(os.fspath(sock))
            return
    raise RuntimeError(f"no server on {sock}: {process.args}")
