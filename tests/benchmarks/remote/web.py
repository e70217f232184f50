"""nginx, serving a folder at one end of a link; its access log is the witness of every request."""

import contextlib
import os
import re
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from remote.processes import running

__all__ = ["Hits", "Web", "parse_hits", "web"]

_CONFIG = """
{user}
worker_processes 1;
daemon off;
pid {place}/pid;
error_log {place}/error.log warn;
events {{ worker_connections 1024; }}
http {{
    log_format hits '$msec|$request_time|$status|$http_range|$body_bytes_sent';
    client_body_temp_path {place}/tmp; proxy_temp_path {place}/tmp; fastcgi_temp_path {place}/tmp;
    uwsgi_temp_path {place}/tmp; scgi_temp_path {place}/tmp;
    default_type application/octet-stream;
    sendfile on;
    server {{ listen {address}; root {root}; access_log {place}/access.log hits; }}
    server {{ listen unix:{place}/status; location / {{ stub_status; access_log off; }} }}
}}
"""
_PORT = 8080  # at an address of the link, where nothing else listens


@dataclass(frozen=True, slots=True)
class Hits:
    """What was asked of the web server.

    Attributes:
        requests: how many.
        sent: bytes of bodies.
        began: when the first request arrived, seconds of the epoch; 0 if there was none.
    """

    requests: int
    sent: int
    began: float


def parse_hits(log: str) -> Hits:
    """Read an access log."""
    lines = [line.split("|") for line in log.splitlines()]
    begins = [float(ended) - float(took) for ended, took, *_ in lines]
    return Hits(len(lines), sum(int(line[-1]) for line in lines), min(begins, default=0.0))


class Web:
    """A running nginx.

    Attributes:
        address: of the server, for URLs.
    """

    def __init__(self, address: str, place: Path, stop: contextlib.ExitStack) -> None:
        self.address = address
        self._place = place
        self._stop = stop

    def url(self, path: Path) -> str:
        """Return the address of a file in the folder."""
        return f"http://{self.address}/{path.name}"

    def mark(self) -> int:
        """Return how long the log is by now, for `hits`."""
        return (self._place / "access.log").stat().st_size

    def hits(self, since: int = 0) -> Hits:
        """Read the log, once no client is connected any more: a request is logged at its end."""
        deadline = time.monotonic() + 10
        while self._connected() and time.monotonic() < deadline:
            time.sleep(0.02)
        return parse_hits((self._place / "access.log").read_text()[since:])

    def stop(self) -> None:
        """Go away, as a mirror does."""
        self._stop.close()

    def _connected(self) -> int:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as status:
            status.connect(str(self._place / "status"))
            status.sendall(b"GET / HTTP/1.0\r\n\r\n")
            found = re.search(rb"Active connections: (\d+)", _all_of(status))
            return int(found[1]) - 1 if found else 0  # less this one
        return 0


@contextlib.contextmanager
def web(root: Path, place: Path, host: str | None, enter: Sequence[str]) -> Iterator[Web]:
    """Serve the files of `root`.

    Args:
        root: the folder.
        place: an own folder, for its log.
        host: the address to listen on; None for a free port of loopback.
        enter: what its command begins with, to run at an end of a link.
    """
    (place / "tmp").mkdir(parents=True)
    address = f"{host}:{_PORT}" if host else f"127.0.0.1:{_free_port()}"
    user = "user root;" if os.geteuid() == 0 else ""  # its worker reads the folder that we own
    config = place / "nginx.conf"
    config.write_text(_CONFIG.format(user=user, place=place, address=address, root=root))
    argv = [*enter, "nginx", "-p", place, "-c", config, "-e", place / "error.log"]
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(running(argv, log=place / "stderr.log"))
        server = Web(address, place, stack)
        while not (place / "pid").exists() or not _answers(place / "status"):
            if process.poll() is not None:
                raise RuntimeError(f"nginx did not start: {(place / 'error.log').read_text()}")
            time.sleep(0.005)
        yield server


def _answers(sock: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(sock)) == 0


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _all_of(sock: socket.socket) -> bytes:
    found = b""
    while more := sock.recv(4096):
        found += more
    return found
