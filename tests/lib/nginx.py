"""A real web server for tests: nginx on a loopback port of its own, its log the witness."""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Hit", "Nginx", "nginx"]

_CONFIG = """
{user}
worker_processes 1;
daemon off;
pid {root}/nginx.pid;
error_log {root}/error.log warn;
events {{ worker_connections 512; }}
http {{
    log_format hits '$request_method|$uri|$status|$http_range|$body_bytes_sent|$connection';
    access_log {root}/access.log hits;
    client_body_temp_path {root}/tmp; proxy_temp_path {root}/tmp; fastcgi_temp_path {root}/tmp;
    uwsgi_temp_path {root}/tmp; scgi_temp_path {root}/tmp;
    default_type application/octet-stream;
    sendfile on;
    keepalive_requests 100000;
    server {{
        listen 127.0.0.1:{port};
        root {root}/files;
        location /norange/ {{ alias {root}/files/; max_ranges 0; }}
        location /redirect/ {{ rewrite ^/redirect/(.*)$ /$1 redirect; }}
        {extra}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Hit:
    """One line of the access log."""

    method: str
    uri: str
    status: int
    range: str
    sent: int
    connection: int


class Nginx:
    """A running nginx; files put under `files` are served."""

    def __init__(self, root: Path, port: int) -> None:
        self.root = root
        self.files = root / "files"
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}"

    def hits(self) -> list[Hit]:
        """Read the access log; nginx writes a line when a request has ended."""
        found = []
        for line in (self.root / "access.log").read_text().splitlines():
            method, uri, status, range_, sent, connection = line.split("|")
            found.append(Hit(method, uri, int(status), range_, int(sent), int(connection)))
        return found

    def forget(self) -> None:
        """Start a new log."""
        os.truncate(self.root / "access.log", 0)

    def start(self) -> None:
        log = (self.root / "stderr.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                ["nginx", "-p", self.root, "-c", self.root / "nginx.conf", "-e",
                 self.root / "error.log"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
        raise RuntimeError((self.root / "stderr.log").read_text())

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None


@contextlib.contextmanager
def nginx(root: Path, extra: str = "") -> Iterator[Nginx]:
    """Run nginx under `root`; `extra` goes into its server block."""
    for folder in ("files", "tmp"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    user = "user root;" if os.geteuid() == 0 else ""  # its workers read the tests' private folder
    config = _CONFIG.format(root=root, port=port, user=user, extra=extra)
    (root / "nginx.conf").write_text(config)
    server = Nginx(root, port)
    server.start()
    try:
        yield server
    finally:
        server.stop()
