"""One socket out of stdin and stdout, for `--single`.

Where both are one socket, as libnbd and qemu make it, it is used as it is; else two threads copy
between the two descriptors and a socket pair.
"""

import os
import socket
import threading

__all__ = ["duplex"]

_CHUNK = 64 << 10


def duplex(read_fd: int, write_fd: int) -> socket.socket:
    """Return a non-blocking stream socket that speaks for `read_fd` and `write_fd`."""
    try:
        same = os.path.sameopenfile(read_fd, write_fd)
        if same:
            sock = socket.socket(fileno=os.dup(read_fd))
            sock.setblocking(False)
            return sock
    except OSError:
        pass  # no socket: pipes, or a terminal
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    for source, sink in ((read_fd, theirs.fileno()), (theirs.fileno(), write_fd)):
        pump = threading.Thread(target=_pump, args=(source, sink, theirs), daemon=True)
        pump.start()
    return ours


def _pump(source: int, sink: int, theirs: socket.socket) -> None:
    try:
        while data := os.read(source, _CHUNK):
            view = memoryview(data)
            while view:
                view = view[os.write(sink, view) :]
    except OSError:
        pass  # either side is gone; so is the client
    finally:
        if sink == theirs.fileno():
            theirs.shutdown(socket.SHUT_WR)
