"""Replies on their way out of one socket: sent at once if it takes them, kept and counted if not.

Bytes of an open file go from the page cache to the socket by sendfile, without a copy through this
process. What the socket did not take at once may have left the page cache by the time it does; it
is then read in a thread. If that fails the connection ends, for its reply has begun.

Invariants: replies leave in the order they were put, never interleaved; nothing is copied, so a
buffer that was put belongs to the outbox until `size` is 0 again.
"""

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence

from nbdserve.device import FileRange
from nbdserve.pagecache import is_resident
from nbdserve.threads import io_pool
from nbdserve.tlssocket import TlsSocket

__all__ = ["Outbox"]

_IOV_MAX = 512  # half of Linux's limit for one sendmsg; more gains nothing
_LOAD = 1 << 20  # bytes of a file that are read at once where it went out of the page cache


class _Span:
    """Bytes of an open file that are still to be sent."""

    __slots__ = ("fd", "length", "offset")

    def __init__(self, fd: int, offset: int, length: int) -> None:
        self.fd = fd
        self.offset = offset
        self.length = length

    def advance(self, count: int) -> None:
        self.offset += count
        self.length -= count


class Outbox:
    """The sending side of a non-blocking socket.

    Args:
        sock: the socket; the outbox never closes it.
        loop: the loop it is watched by.
        on_progress: called when some of what had been kept was sent.
        on_error: called once when the peer is gone, or what was promised to it is.
    """

    def __init__(
        self,
        sock: socket.socket | TlsSocket,
        loop: asyncio.AbstractEventLoop,
        *,
        on_progress: Callable[[], None],
        on_error: Callable[[OSError], None],
    ) -> None:
        self._sock = sock
        self._loop = loop
        self._on_progress = on_progress
        self._on_error = on_error
        self._kept: deque[memoryview | _Span] = deque()
        self._watching = False
        self._loading = False
        self._broken = False
        self.size = 0
        """Bytes put and not yet taken by the kernel."""

    def put(self, buffers: Sequence[bytes | memoryview], *, more: bool = False) -> None:
        """Send buffers, or keep what the socket does not take now.

        Args:
            buffers: what to send, in order.
            more: `put_file` follows at once, so a packet that is not full may wait for it.
        """
        if self._broken:
            return
        if self._kept:
            self._keep(buffers, 0)
            return
        flags = socket.MSG_MORE if more else 0
        for start in range(0, len(buffers), _IOV_MAX):
            batch = buffers[start : start + _IOV_MAX]
            try:
                sent = self._sock.sendmsg(batch, (), flags)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as exc:
                self._fail(exc)
                return
            if sent < sum(map(len, batch)):
                self._keep(buffers[start:], sent)
                return

    def put_file(self, file: FileRange, length: int) -> None:
        """Send bytes that lie in an open file and, as far as can be told, in the page cache.

        The file stays open, and the bytes where they are, as `Device.file_range` promises.
        """
        if self._broken:
            return
        span = _Span(file.fd, file.offset, length)
        if self._kept or (not self._send_span(span) and not self._broken):
            self._kept.append(span)
            self.size += span.length
            self._watch()

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
        self._watch()

    def _writable(self) -> None:
        while self._kept and self._send_kept():
            pass
        if not self._broken:
            if not self._kept:
                self._unwatch()
            self._on_progress()

    def _send_kept(self) -> bool:
        """Send what comes next, a span or the buffers before one; tell whether all of it went."""
        head = self._kept[0]
        if isinstance(head, _Span):
            return self._send_kept_span(head)
        batch: list[memoryview] = []
        for item in self._kept:
            if isinstance(item, _Span) or len(batch) == _IOV_MAX:
                break
            batch.append(item)
        try:
            sent = self._sock.sendmsg(batch)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as exc:
            self._fail(exc)
            return False
        self.size -= sent
        for buffer in batch:
            self._kept.popleft()
            if sent < len(buffer):
                self._kept.appendleft(buffer[sent:])
                return False
            sent -= len(buffer)
        return True

    def _send_kept_span(self, span: _Span) -> bool:
        if not is_resident(span.fd, span.offset, span.length):
            self._load(span)
            return False
        before = span.length
        done = self._send_span(span)
        if not self._broken:
            self.size -= before - span.length
            if done:
                self._kept.popleft()
        return done

    def _send_span(self, span: _Span) -> bool:
        """Send as much of a span as the socket takes; tell whether that was all."""
        while span.length:
            try:
                sent = os.sendfile(self._sock.fileno(), span.fd, span.offset, span.length)
            except (BlockingIOError, InterruptedError):
                return False
            except (BrokenPipeError, ConnectionError) as exc:
                self._fail(exc)
                return False
            except OSError:  # about the file, whose reader in the thread finds out what it is
                return False
            if not sent:
                return False
            span.advance(sent)
        return True

    # What has left the page cache

    def _load(self, span: _Span) -> None:
        """Read the next bytes of a span in a thread; nothing is sent meanwhile."""
        self._unwatch()
        self._loading = True
        count = min(span.length, _LOAD)
        reading = self._loop.run_in_executor(io_pool(), _read, span.fd, span.offset, count)
        reading.add_done_callback(self._loaded)

    def _loaded(self, reading: asyncio.Future[bytes]) -> None:
        self._loading = False
        error = None if reading.cancelled() else reading.exception()
        if self._broken or reading.cancelled():
            return
        if error is not None:
            self._fail(error if isinstance(error, OSError) else OSError(str(error)))
            return
        data = reading.result()
        span = self._kept[0]
        assert isinstance(span, _Span), "nothing is sent while the head is being read"
        span.advance(len(data))
        if not span.length:
            self._kept.popleft()
        self._kept.appendleft(memoryview(data))
        self._watch()

    def _fail(self, exc: OSError) -> None:
        self.close()
        self._on_error(exc)

    def _watch(self) -> None:
        if self._kept and not self._watching and not self._loading:
            self._watching = True
            self._loop.add_writer(self._sock.fileno(), self._writable)

    def _unwatch(self) -> None:
        if self._watching:
            self._watching = False
            self._loop.remove_writer(self._sock.fileno())


def _read(fd: int, offset: int, length: int) -> bytes:
    """Read exactly that many bytes; blocks."""
    data = os.pread(fd, length, offset)
    while len(data) < length:
        more = os.pread(fd, length - len(data), offset + len(data))
        if not more:
            raise OSError(
                errno.EIO, "a file that was being sent shrank; the reply cannot be finished"
            )
        data += more
    return data
