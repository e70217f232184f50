"""Waiting for what another process does: until it is so, never for a while."""

import fcntl
import socket
import struct
import termios
import time
from collections.abc import Callable

__all__ = ["eventually", "taken"]


def eventually(predicate: Callable[[], object], within: float = 30) -> None:
    """Return as soon as `predicate` holds; fail when it does not within a generous time."""
    deadline = time.monotonic() + within
    while not predicate():
        if time.monotonic() > deadline:
            raise AssertionError("it never came true")
        time.sleep(0.002)  # the pace of the question, not a guess at the answer


def taken(sock: socket.socket) -> bool:
    """Whether the peer has received everything that was sent (unix(7), SIOCOUTQ)."""
    (left,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    return left == 0
