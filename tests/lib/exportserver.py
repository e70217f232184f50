"""nbdserve as minicloud uses it: on TCP for the nodes, with a control socket, and restartable."""

import contextlib
import subprocess
import sys
from pathlib import Path

from daemon import Daemon, daemon

__all__ = ["ExportServer"]


class ExportServer:
    """An nbdserve whose exports come and go; its state stays in `folder` when it is restarted.

    It lives in the network namespace of the thread that starts it.

    Attributes:
        address: what it listens on.
        port: likewise.
        control: its control socket.
        overlays: folder for guests' overlays.
    """

    def __init__(self, folder: Path, address: str, port: int = 10809) -> None:
        self.address = address
        self.port = port
        self.control = folder / "control.sock"
        self.state = folder / "state"
        self.overlays = folder / "overlays"
        self._stack = contextlib.ExitStack()
        for path in (self.state, self.overlays):
            path.mkdir(parents=True)

    def start(self, *options: object) -> Daemon:
        """Start it and wait until it is ready."""
        return self._stack.enter_context(
            daemon(
                options=("--bind", self.address, "--port", self.port, "--control", self.control,
                         "--state-dir", self.state, "--overlay-dir", self.overlays, *options)
            )
        )  # fmt: skip

    def stop(self) -> None:
        """End it as systemd does; after a kill, this tidies up."""
        self._stack.close()

    def add(self, name: str, *words: object) -> None:
        """Add an export, as `nbdctl export add` does."""
        self._nbdctl("export", "add", name, *words)

    def remove(self, name: str) -> None:
        self._nbdctl("export", "remove", name, "--force")

    def _nbdctl(self, *words: object) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "nbdserve.nbdctl", *map(str, words[:3]), "--control",
             self.control, *map(str, words[3:])],
            capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
