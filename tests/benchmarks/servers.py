"""The servers that are compared: each serves one raw file, on a Unix socket or on TCP.

Each runs as its makers mean it to run; none is given a cache of its own. CPU time counts the
children too, for nbd-server forks one for each connection.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CONTENDERS", "OURS", "Place", "Running", "serving"]

OURS = "nbdserve"
"""How tables and options call the server that is measured against the others."""

_WAIT = 30  # seconds a server may take to listen


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is to listen: on a Unix socket, or on a TCP port of the loopback."""

    sock: Path
    port: int = 0

    def uri(self, export: str) -> str:
        """Return the URI of an export here."""
        if self.port:
            return f"nbd://127.0.0.1:{self.port}/{export}"
        return f"nbd+unix:///{export}?socket={self.sock}"

    def connect(self) -> socket.socket:
        """Return a connected blocking socket."""
        if self.port:
            return socket.create_connection(("127.0.0.1", self.port))
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(os.fspath(self.sock))
        return sock


@dataclass(frozen=True, slots=True)
class Running:
    """A server at work: where, under which export name, and as which process."""

    place: Place
    export: str
    pid: int

    @property
    def uri(self) -> str:
        """The URI of what it serves."""
        return self.place.uri(self.export)

    def cpu_seconds(self) -> float:
        """Return the CPU time it and its children have used (proc(5), stat fields 14 to 17)."""
        total = sum(_times(self.pid))
        for child in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                total += sum(_times(int(child))[:2])
        return total / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Contender:
    """One server.

    Attributes:
        argv: its command line for an image and a place.
        export: how it is called there.
        forks: it leaves, and a child of its own stays.
        warms: it keeps what was read, and is measured with all of it there.
    """

    argv: Callable[[Path, Place], list[str]]
    export: str = ""
    forks: bool = False
    warms: bool = False


def _nbdserve(*words: str) -> Callable[[Path, Place], list[str]]:
    def argv(image: Path, place: Place) -> list[str]:
        where = ["-p", str(place.port)] if place.port else ["-U", str(place.sock)]
        return [sys.executable, "-m", "nbdserve", *where, *words, "file", str(image)]

    return argv


def _nbdserve_xz(image: Path, place: Place) -> list[str]:
    subprocess.run(["xz", "-0", "-T0", "-kf", "--block-size=16MiB", str(image)], check=True)
    packed = image.with_name(f"{image.name}.xz")
    return _nbdserve("--layer", "xz:cache=2G")(packed, place)


def _nbdkit(image: Path, place: Place) -> list[str]:
    where = ["-i", "127.0.0.1", "-p", str(place.port)] if place.port else ["-U", str(place.sock)]
    return ["nbdkit", "-f", *where, "file", str(image)]


def _qemu_nbd(image: Path, place: Place) -> list[str]:
    where = ["-b", "127.0.0.1", "-p", str(place.port)] if place.port else ["-k", str(place.sock)]
    return ["qemu-nbd", "-t", "-e", "64", "-f", "raw", *where, str(image)]


def _nbd_server(image: Path, place: Place) -> list[str]:
    config = place.sock.with_suffix(".conf")
    where = f"port = {place.port}" if place.port else f"unixsock = {place.sock}"
    config.write_text(
        f"[generic]\nlistenaddr = 127.0.0.1\n{where}\n"
        f"[disk]\nexportname = {image}\ntrim = true\nflush = true\nfua = true\n"
    )
    return ["nbd-server", "-C", str(config), "-p", str(_pid_file(place))]


CONTENDERS = {
    OURS: Contender(_nbdserve()),
    "nbdkit": Contender(_nbdkit),
    "qemu-nbd": Contender(_qemu_nbd),
    "nbd-server": Contender(_nbd_server, "disk", forks=True),
    # not in the table unless asked for by --servers; read-only, for the first locks the file
    "workers": Contender(_nbdserve("--workers", "2", "--read-only")),
    "slice": Contender(_nbdserve("--read-only", "--layer", "slice")),
    "cow": Contender(_nbdserve("--layer", "cow")),
    "cache": Contender(_nbdserve("--read-only", "--layer", "cache:size=2G"), warms=True),
    "xz": Contender(_nbdserve_xz, warms=True),
}


@contextlib.contextmanager
def serving(name: str, image: Path, scratch: Path, transport: str) -> Iterator[Running]:
    """Run a server on an image until the block ends."""
    contender = CONTENDERS[name]
    place = Place(scratch / f"{name}-{image.stem}-{transport}.sock")
    if transport == "tcp":
        place = Place(place.sock, _free_port())
    place.sock.unlink(missing_ok=True)
    with place.sock.with_suffix(".log").open("ab") as log:
        process = subprocess.Popen(
            contender.argv(image, place), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        _wait(process, place, forks=contender.forks)
        pid = int(_pid_file(place).read_text()) if contender.forks else process.pid
        if contender.warms:
            subprocess.run(["nbdcopy", place.uri(contender.export), "null:"], check=True)
        yield Running(place, contender.export, pid)
    finally:
        if contender.forks:
            with contextlib.suppress(OSError):
                os.kill(int(_pid_file(place).read_text()), signal.SIGTERM)
        else:
            process.terminate()
        process.wait(_WAIT)


def _pid_file(place: Place) -> Path:
    return place.sock.with_suffix(".pid")


def _times(pid: int) -> list[int]:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return [int(field) for field in fields[11:15]]


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], place: Place, *, forks: bool) -> None:
    deadline = time.monotonic() + _WAIT
    while time.monotonic() < deadline and (forks or process.poll() is None):
        with contextlib.suppress(OSError):
            place.connect().close()
            if not forks or _pid_file(place).exists():
                return
        time.sleep(0.02)
    raise RuntimeError(f"no server at {place}: {process.args}")
