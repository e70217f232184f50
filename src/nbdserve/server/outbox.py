"""Replies on their way out of one socket: sent at once if it takes them, kept and counted if not.

Invariants: replies leave in the order they were put, never interleaved; nothing is copied, so a
buffer that was put belongs to the outbox until `size` is 0 again.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence

__all__ = ["Outbox"]

_IOV_MAX = 512  # half of Linux's limit for one sendmsg; more gains nothing


class Outbox:
    """The sending side of a non-blocking socket.

    Args:
        sock: the socket; the outbox never closes it.
        loop: the loop it is watched by.
        on_progress: called when some of what had been kept was sent.
        on_error: called once when the peer is gone.
    """

    def __init__(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        *,
        on_progress: Callable[[], None],
        on_error: Callable[[OSError], None],
    ) -> None:
        self._sock = sock
        self._loop = loop
        self._on_progress = on_progress
        self._on_error = on_error
        self._kept: deque[memoryview] = deque()
        self._watching = False
        self._broken = False
        self.size = 0
        """Bytes put and not yet taken by the kernel."""

    def put(self, buffers: Sequence[bytes | memoryview]) -> None:
        """Send buffers, or keep what the socket does not take now."""
        if self._broken:
            return
        if self._kept:
            self._keep(buffers, 0)
            return
        for start in range(0, len(buffers), _IOV_MAX):
            batch = buffers[start : start + _IOV_MAX]
            try:
                sent = self._sock.sendmsg(batch)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as exc:
                self._fail(exc)
                return
            if sent < sum(map(len, batch)):
                self._keep(buffers[start:], sent)
                return

    def close(self) -> None:
        """Stop watching the socket and drop what is kept."""
        self._broken = True
        self._unwatch()
        self._kept.clear()
        self.size = 0

    def _keep(self, buffers: Sequence[bytes | memoryview], sent: int) -> None:
        for buffer in buffers:
            if sent >= len(buffer):
                sent -= len(buffer)
                continue
            rest = memoryview(buffer)[sent:]
            sent = 0
            self._kept.append(rest)
            self.size += len(rest)
        if not self._watching and self._kept:
            self._watching = True
            self._loop.add_writer(self._sock.fileno(), self._writable)

    def _writable(self) -> None:
        batch = [buffer for _, buffer in zip(range(_IOV_MAX), self._kept, strict=False)]
        try:
            sent = self._sock.sendmsg(batch)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            self._fail(exc)
            return
        self.size -= sent
        while sent:
            head = self._kept.popleft()
            if sent < len(head):
                self._kept.appendleft(head[sent:])
                break
            sent -= len(head)
        if not self._kept:
            self._unwatch()
        self._on_progress()

    def _fail(self, exc: OSError) -> None:
        self.close()
        self._on_error(exc)

    def _unwatch(self) -> None:
        if self._watching:
            self._watching = False
            self._loop.remove_writer(self._sock.fileno())
