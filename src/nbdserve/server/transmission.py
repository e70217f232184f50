"""The transmission phase of one connection: requests in, device calls, replies out of order.

The hot path has no task, no executor and no copy: a readable socket is received from once, the
batch is parsed where it lies, reads that the chain can answer at once fill a slab, and one sendmsg
takes all their replies. Everything else gets a task of its own and answers when it is done.

Bounds: at most `max_in_flight` requests and `max_in_flight_bytes` of their data are under way (one
request is always admitted, however large); nothing is started while more than `_HIGH_WATER` bytes
wait for the client to read them; and while requests wait to be started nothing more is received.
A turn of the loop serves at most one slab or `_TURN_REQUESTS`, so that one deep queue does
not keep other connections waiting.
"""

import asyncio
import logging
import socket
from collections import deque

from nbdserve.errors import ProtocolError
from nbdserve.protocol.constants import Command, CommandFlag
from nbdserve.protocol.errno import wire_failure
from nbdserve.protocol.messages import Negotiated, ReplyMode, Request
from nbdserve.protocol.replies import replies_for
from nbdserve.protocol.requests import RequestDecoder
from nbdserve.protocol.validation import refusal
from nbdserve.server import slabs
from nbdserve.server.exports import Export
from nbdserve.server.limits import Limits
from nbdserve.server.operations import perform, read_reply
from nbdserve.server.outbox import Outbox

__all__ = ["Transmission"]

log = logging.getLogger(__name__)

_HIGH_WATER = 2 << 20
_TURN_REQUESTS = 128
_MOST_WARNINGS = 16  # distinct failures told at WARNING a connection; the rest is DEBUG

_READ = int(Command.READ)
_WRITE = int(Command.WRITE)
_DISC = int(Command.DISC)
_NOT_HOT = ~int(CommandFlag.FUA)


class Transmission:
    """Serve requests on a socket until the client leaves or `stop` was called.

    Args:
        sock: non-blocking; borrowed, never closed here.
        export: what is served.
        negotiated: the outcome of the handshake.
        limits: bounds on what one connection may have under way.
        peer: how logs call the client.
    """

    def __init__(
        self,
        sock: socket.socket,
        export: Export,
        negotiated: Negotiated,
        limits: Limits,
        *,
        peer: str,
    ) -> None:
        self._sock = sock
        self._device = export.device
        self._negotiated = negotiated
        self._limits = limits
        self._peer = peer
        self._replies = replies_for(negotiated.mode)
        self._loop = asyncio.get_running_loop()
        self._finished: asyncio.Future[None] = self._loop.create_future()
        self._outbox = Outbox(sock, self._loop, on_progress=self._dispatch, on_error=self._lost)
        self._queue: deque[Request] = deque()  # received, not started
        self._tasks: set[asyncio.Task[None]] = set()
        self._bytes_in_flight = 0
        self._slabs: list[memoryview] = []  # the outbox may still send from these; the last is
        self._used = 0  # filled up to here
        self._reading = False
        self._stopping = False
        self._turn: asyncio.Handle | None = None
        self._warned: set[str] = set()
        self.requests = 0
        """Requests received so far."""

    async def run(self, trailing: bytes) -> None:
        """Serve; returns when the last reply was sent or the client is gone.

        Args:
            trailing: bytes that came with the end of the handshake.
        """
        self._decoder = RequestDecoder(
            self._accepts,
            extended=self._negotiated.mode is ReplyMode.EXTENDED,
            trailing=trailing,
        )
        try:
            self._received(0)
            await self._finished
        finally:
            await self._release()

    def stop(self) -> None:
        """Receive no more; finish and answer what was received, then `run` returns."""
        self._stopping = True
        self._dispatch()

    # Receiving

    def _accepts(self, request: Request) -> bool:
        return refusal(request, self._negotiated) is None

    def _readable(self) -> None:
        try:
            count = self._sock.recv_into(self._decoder.buffer())
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            self._lost(exc)
            return
        if count == 0:
            self._lost(None)
            return
        self._received(count)

    def _received(self, count: int) -> None:
        try:
            requests = self._decoder.received(count)
        except ProtocolError as exc:
            log.warning("client dropped peer=%s: %s", self._peer, exc)
            self._finish()
            return
        self.requests += len(requests)
        self._queue.extend(requests)
        self._dispatch()

    def _watch(self) -> None:
        """Receive only while everything received has been started."""
        wanted = not self._stopping and not self._queue and not self._finished.done()
        if wanted and not self._reading:
            self._loop.add_reader(self._sock.fileno(), self._readable)
        elif self._reading and not wanted:
            self._loop.remove_reader(self._sock.fileno())
        self._reading = wanted

    # Starting

    def _dispatch(self) -> None:
        """Start what may be started; called whenever a bound may have been lifted."""
        if self._finished.done():
            return
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        if not self._outbox.size:
            self._give_slabs_back()
        if self._queue:
            self._serve_batch()
        self._watch()
        if self._stopping and not (self._queue or self._tasks or self._outbox.size):
            self._finish()

    def _serve_batch(self) -> None:
        queue, export, replies = self._queue, self._negotiated.export, self._replies
        read_nowait, hot_minimum = self._device.read_into_nowait, export.minimum == 1
        batch: list[bytes | memoryview] = []
        slab, used = self._slabs[-1] if self._slabs else None, self._used
        filled = 0
        left = _TURN_REQUESTS
        while queue and left and not self._is_full(queue[0]):
            left -= 1
            request = queue.popleft()
            flags, type_, _, offset, length, _ = request
            if (
                type_ == _READ
                and not flags & _NOT_HOT
                and hot_minimum
                and 0 < length <= slabs.SLAB_SIZE
                and offset + length <= export.size
            ):
                if slab is None or used + length > slabs.SLAB_SIZE:
                    if filled:  # a slab a turn
                        queue.appendleft(request)
                        break
                    slab, used = slabs.take(), 0
                    self._slabs.append(slab)
                view = slab[used : used + length]
                if read_nowait(offset, view):
                    batch += read_reply(request, view, replies)
                    used += length
                    filled += length
                else:
                    self._spawn(request)
            else:
                self._start(request, batch)
        self._used = used
        if batch:
            self._outbox.put(batch)
            if not self._outbox.size:
                self._give_slabs_back()
        if queue and not self._is_full(queue[0]):
            self._turn = self._loop.call_soon(self._dispatch)

    def _start(self, request: Request, batch: list[bytes | memoryview]) -> None:
        """Start any request, or put its refusal into `batch`."""
        if request.type == _DISC:
            self._queue.clear()  # the spec allows nothing after it
            self._stopping = True
            return
        refused = refusal(request, self._negotiated)
        if refused is None:
            self._spawn(request)
            return
        log.debug("refused peer=%s request=%s: %s", self._peer, request, refused.text)
        batch.append(self._replies.error(request, *refused))

    def _is_full(self, request: Request) -> bool:
        if self._outbox.size >= _HIGH_WATER:
            return True
        if not self._tasks:
            return False
        cost = request.length if request.type in (_READ, _WRITE) else 0
        return (
            len(self._tasks) >= self._limits.max_in_flight
            or self._bytes_in_flight + cost > self._limits.max_in_flight_bytes
        )

    # Carrying out

    def _spawn(self, request: Request) -> None:
        cost = request.length if request.type in (_READ, _WRITE) else 0
        self._bytes_in_flight += cost
        task = self._loop.create_task(self._carry_out(request))
        self._tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._bytes_in_flight -= cost
            self._dispatch()

        task.add_done_callback(done)

    async def _carry_out(self, request: Request) -> None:
        try:
            reply = await perform(self._device, request, self._replies)
        except asyncio.CancelledError:
            raise
        except Exception as exc:  # noqa: BLE001 -- whatever a device raises is that request's answer
            reply = (self._failed(request, exc),)
        self._outbox.put(reply)

    def _failed(self, request: Request, exc: Exception) -> bytes:
        fast_zero = bool(request.flags & CommandFlag.FAST_ZERO)
        failure = wire_failure(exc, fast_zero=fast_zero)
        level = logging.WARNING
        if fast_zero or failure.text in self._warned or len(self._warned) >= _MOST_WARNINGS:
            level = logging.DEBUG
        self._warned.add(failure.text)
        unexpected = None if isinstance(exc, OSError | MemoryError) else exc
        log.log(
            level,
            "request failed peer=%s command=%s offset=%d length=%d error=%s: %s",
            self._peer,
            Command(request.type).name,
            request.offset,
            request.length,
            failure.error.name,
            failure.text,
            exc_info=unexpected,
        )
        return self._replies.error(request, *failure)

    # Ending

    def _lost(self, exc: OSError | None) -> None:
        if exc is not None or self._tasks or self._queue or not self._decoder.is_idle:
            log.info("client vanished peer=%s: %s", self._peer, exc or "closed without DISC")
        self._finish()

    def _finish(self) -> None:
        if not self._finished.done():
            self._finished.set_result(None)

    async def _release(self) -> None:
        """Cancel and await what is under way; afterwards nothing refers to the socket."""
        self._finish()
        self._watch()
        self._outbox.close()
        if self._turn is not None:
            self._turn.cancel()
        self._queue.clear()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        self._give_slabs_back()

    def _give_slabs_back(self) -> None:
        """Let go of the slabs; only when the outbox holds nothing."""
        for slab in self._slabs:
            slabs.give_back(slab)
        self._slabs.clear()
        self._used = 0
