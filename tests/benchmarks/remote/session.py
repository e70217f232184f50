"""One running NBD server under measurement, and the connections to it."""

import contextlib
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nbdserve.testing.client import Client
from remote.layout import Layout
from remote.trace import Read

__all__ = ["Session"]


@dataclass(slots=True)
class Session:
    """What a work is done on.

    Attributes:
        process: of the server.
        started: when its command was run, on the monotonic clock.
        sock: where it listens, or is about to.
        raw: the image itself, to compare with.
        layout: how it is packed; None if it is not.
        reads: what a boot reads.
        log: what clients say is appended here.
        within: seconds that a work may take.
        accel: how qemu runs a guest.
        restart: for a work to call when what counts begins only then.
        answered: when the work's first answer came, seconds of the epoch.
    """

    process: subprocess.Popen[bytes]
    started: float
    sock: Path
    raw: Path
    layout: Layout | None
    reads: Sequence[Read]
    log: Path
    within: float
    accel: str
    restart: Callable[[], None]
    answered: float = 0.0

    @property
    def uri(self) -> str:
        """Of the export, for clients of libnbd and qemu."""
        return f"nbd+unix:///?socket={self.sock}"

    def ready(self) -> socket.socket:
        """Connect as soon as the server listens."""
        deadline = time.monotonic() + self.within
        while time.monotonic() < deadline and self.process.poll() is None:
            sock = socket.socket(socket.AF_UNIX)
            with contextlib.suppress(OSError):
                sock.connect(str(self.sock))
                sock.setblocking(False)
                return sock
            sock.close()
            time.sleep(0.002)
        raise RuntimeError("the server did not start")

    def told(self, log: Path, words: str) -> None:
        """Wait until the server's log has these words."""
        deadline = time.monotonic() + self.within
        while words not in log.read_text(errors="replace"):
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError(f"the server never said {words!r}")
            time.sleep(0.1)

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """Connect and negotiate; leave without ceremony."""
        client = await Client.from_socket(self.ready())
        try:
            yield client
        finally:
            await client.close()

    def check(self, offset: int, data: bytes) -> None:
        """Compare an answer with the image; a fast wrong answer is no figure."""
        with self.raw.open("rb") as file:
            file.seek(offset)
            if file.read(len(data)) != data:
                raise RuntimeError(f"wrong bytes at {offset}")
