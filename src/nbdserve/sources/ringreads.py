"""Reads of files through a ring, for all files of an event loop.

A thread of its own enters the kernel, since that may wait: for the place of the bytes on the disk,
which has to be read first, or for the disk's queue. The loop only writes reads down and takes their
ends, of which an eventfd tells.

Invariant: the buffer of a read that was written down is kept until the kernel is through with it,
whoever has given it up.
"""

import asyncio
import errno
import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

from nbdserve.iouring import Ring, address_of

__all__ = ["Ended", "RingReads", "join_ring", "leave_ring"]

log = logging.getLogger(__name__)

_ENTRIES: Final = 512
_TURN: Final = 64  # ends taken in a turn of the loop: 0.3 ms that hot reads of others may wait

Ended = Callable[[int], None]
"""Takes what came of a read: bytes, which may be fewer than asked for, or an errno, negative."""


_Read = tuple[memoryview, Ended]


class RingReads:
    """The reads that are under way in a ring. One event loop.

    Raises:
        OSError: there is no io_uring to be had.
    """

    def __init__(self) -> None:
        self._ring = Ring(_ENTRIES)
        self._loop = asyncio.get_running_loop()
        self._under_way: dict[int, _Read] = {}
        self._tag = 0
        self._put = 0  # since the last order
        self._order: asyncio.Handle | None = None
        self._orders: SimpleQueue[int] = SimpleQueue()
        self._more: asyncio.Handle | None = None
        self._broken = False
        self._thread = threading.Thread(target=self._enter, name="nbdserve-ring", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as exc:  # a limit of threads
            self._ring.close()
            raise OSError(errno.EAGAIN, str(exc)) from exc
        self._loop.add_reader(self._ring.eventfd, self._reap)
        self.users = 0

    @property
    def has_room(self) -> bool:
        """Whether one more read may be added."""
        return len(self._under_way) < _ENTRIES and not self._broken

    def add(self, fd: int, offset: int, view: memoryview, ended: Ended) -> None:
        """Begin a read, together with all others of this turn of the loop; there has to be room.

        Args:
            fd: an open file, not to be closed before the read has ended.
            offset: in bytes.
            view: filled from its start; kept until the read has ended.
            ended: called once on the loop, later.
        """
        self._tag += 1
        self._under_way[self._tag] = (view, ended)
        self._ring.put(fd, offset, address_of(view), len(view), self._tag)
        self._put += 1
        if self._order is None:
            self._order = self._loop.call_soon(self._send_order)

    def close(self) -> None:
        """Give the ring back; when all reads have ended."""
        self._loop.remove_reader(self._ring.eventfd)
        if self._more is not None:
            self._more.cancel()
        self._orders.put(0)
        self._thread.join()  # at once: it has nothing to do
        if not self._broken:
            self._ring.close()

    def _send_order(self) -> None:
        self._order = None
        self._ring.publish()
        self._orders.put(self._put)
        self._put = 0

    def _enter(self) -> None:
        """Enter the kernel as often as there is an order; in the thread."""
        while count := self._orders.get():
            try:
                self._ring.enter(count)
            except OSError as exc:
                self._tell_broken(exc)
                return

    def _tell_broken(self, exc: OSError) -> None:
        try:
            self._loop.call_soon_threadsafe(self._break, exc)
        except RuntimeError:
            pass  # the loop was closed meanwhile, and nobody waits any more

    def _break(self, exc: OSError) -> None:
        """Give the ring up: all reads end with an error, to be done another way.

        What the kernel has begun it may still carry out, so their buffers are kept for good.
        """
        log.error("io_uring fails, cold reads go through threads from now on: %s", exc)
        self._broken = True
        _kept.append(self._under_way)
        for _, ended in self._under_way.values():
            ended(-(exc.errno or errno.EIO))

    def _reap(self) -> None:
        if self._more is not None:
            self._more.cancel()
            self._more = None
        if self._broken:
            return
        found = self._ring.reap(_TURN)
        for tag, result, _ in found:
            self._under_way.pop(tag)[1](result)
        if len(found) == _TURN:
            self._more = self._loop.call_soon(self._reap)


_rings: dict[asyncio.AbstractEventLoop, RingReads] = {}
_kept: list[dict[int, _Read]] = []  # what the kernel may still write to


def join_ring() -> RingReads | None:
    """Find or make the ring of this event loop; give it back with `leave_ring`.

    Returns:
        None if there is no io_uring to be had.
    """
    loop = asyncio.get_running_loop()
    if loop not in _rings:
        try:
            _rings[loop] = RingReads()
        except OSError as exc:
            log.debug("no io_uring, cold reads go through threads: %s", exc.strerror)
            return None
    ring = _rings[loop]
    ring.users += 1
    return ring


def leave_ring(ring: RingReads) -> None:
    """Give a ring back, when one's own reads have ended; the last one out closes it."""
    ring.users -= 1
    if not ring.users:
        del _rings[asyncio.get_running_loop()]
        ring.close()
