"""One socket out of stdin and stdout, for `--single`.

Where both are one socket, as libnbd and qemu make it, it is used as it is; else two threads copy
between the two descriptors and a socket pair. Those threads end with the process, so the last
replies are out only once `delivered` says so.
"""

import contextlib
import os
import socket
import threading
from dataclasses import dataclass

__all__ = ["Duplex", "duplex"]

_CHUNK = 64 << 10


@dataclass(frozen=True, slots=True)
class Duplex:
    """A socket that speaks for two descriptors.

    Attributes:
        sock: non-blocking; the caller's to close.
    """

    sock: socket.socket
    _outward: threading.Thread | None = None

    def delivered(self, timeout: float) -> bool:
        """Wait until all that was sent is written, once `sock` is closed; blocks.

        Returns:
            Whether it is, rather than `timeout` seconds over.
        """
        if self._outward is None:
            return True
        self._outward.join(timeout)
        return not self._outward.is_alive()


def duplex(read_fd: int, write_fd: int) -> Duplex:
    """Make a stream socket that speaks for `read_fd` and `write_fd`."""
    try:
        if os.path.sameopenfile(read_fd, write_fd):
            sock = socket.socket(fileno=os.dup(read_fd))
            sock.setblocking(False)
            return Duplex(sock)
    except OSError:
        pass  # no socket: pipes, or a terminal
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    users = ["inward", "outward"]
    inward = (read_fd, theirs.fileno(), theirs, socket.SHUT_WR, users)
    outward = (theirs.fileno(), write_fd, theirs, socket.SHUT_RD, users)
    threading.Thread(target=_pump, args=inward, daemon=True).start()
    pump = threading.Thread(target=_pump, args=outward, daemon=True)
    pump.start()
    return Duplex(ours, pump)


def _pump(source: int, sink: int, theirs: socket.socket, direction: int, users: list[str]) -> None:
    """Copy until either side is gone; so is the client then, in this direction."""
    with contextlib.suppress(OSError):
        while data := os.read(source, _CHUNK):
            view = memoryview(data)
            while view:
                view = view[os.write(sink, view) :]
    with contextlib.suppress(OSError):
        theirs.shutdown(direction)
    users.pop()
    if not users:  # the other thread must not write to a number that was given away
        theirs.close()
