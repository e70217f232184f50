"""The real `nbdserve` command as a child process, ready when it says so by sd_notify."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["Daemon", "daemon", "nbdserve_argv", "run_nbdserve"]

_READY_WITHIN = 60  # seconds; opening a far image takes a few, a hang takes for ever


def nbdserve_argv(*words: object) -> list[str]:
    """Build the command line, run by this very interpreter."""
    return [
        sys.executable,
        "-m",
        "nbdserve",
        *(w if isinstance(w, bytes) else str(w) for w in words),
    ]


def run_nbdserve(*words: object, **options) -> subprocess.CompletedProcess[str]:
    """Run `nbdserve` to its end, for what ends by itself."""
    return subprocess.run(
        nbdserve_argv(*words), capture_output=True, text=True, timeout=120,
        stdin=subprocess.DEVNULL, check=False, **options,
    )  # fmt: skip


class Daemon:
    """A running nbdserve."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process = process
        self.socket = folder / "nbd.sock"
        self.log_path = folder / "nbdserve.log"

    def uri(self, export: str = "") -> str:
        return f"nbd+unix:///{export}?socket={self.socket}"

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    @property
    def peak_rss(self) -> int:
        """The most memory it has had resident so far, in bytes (proc(5), VmHWM)."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("no VmHWM")

    def terminate(self) -> int:
        """Send SIGTERM and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)


@contextlib.contextmanager
def daemon(*words: object, options: Sequence[object] = (), wrap=list, **popen) -> Iterator[Daemon]:
    """Run `nbdserve OPTIONS --unix SOCKET WORDS` until the block ends.

    Args:
        words: layers, source and what belongs to it.
        options: put before the listener's.
        wrap: turns the command line into one that runs it; what it runs must become the daemon.
        popen: for Popen.
    """
    with tempfile.TemporaryDirectory(prefix="nbdserve-test-") as name:
        folder = Path(name)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(folder / "notify"))
            notify.settimeout(_READY_WITHIN)
            environment = {**os.environ, "NOTIFY_SOCKET": str(folder / "notify")}
            environment.update(popen.pop("env", {}))
            with (folder / "nbdserve.log").open("wb") as log:
                process = subprocess.Popen(
                    wrap(nbdserve_argv(*options, "--unix", folder / "nbd.sock", *words)),
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, **popen,
                )  # fmt: skip
            server = Daemon(process, folder)
            try:
                _wait_until_ready(server, notify)
                yield server
            finally:
                if process.poll() is None:
                    process.terminate()
                    try:
                        process.wait(60)
                    finally:
                        process.kill()


def _wait_until_ready(server: Daemon, notify: socket.socket) -> None:
    notify.settimeout(0.2)
    for _ in range(_READY_WITHIN * 5):
        with contextlib.suppress(TimeoutError):
            if b"READY=1" in notify.recv(4096):
                return
        if server.process.poll() is not None:
            break
    raise RuntimeError(f"nbdserve did not become ready: {server.log}")
