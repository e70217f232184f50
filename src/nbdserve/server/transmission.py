"""The transmission phase of one connection: requests in, device calls, replies out of order.

The hot path has no task, no executor and no copy: a readable socket is received from once, the
batch is parsed where it lies, reads that the chain can answer at once fill a slab, and one sendmsg
takes all their replies; what lies in a file and is large goes by sendfile. Everything else is put
in flight and answers when it is done.

A client that asks again as soon as it is answered is served without going through the event loop:
after sending, the socket is tried again a few times. That saves a sleep and a wake-up, which at
depth 1 cost more than the read itself. It is done only while this connection is the only one that
is served, and only as long as it pays.

Bounds: what `InFlight` admits is under way; nothing is started while more than `_HIGH_WATER` bytes
or `_MOST_SLABS` wait for the client to read them; and while requests wait to be started nothing
more is received.
A turn of the loop serves at most one slab or `_TURN_REQUESTS`, and of hot reads less while others
are served too, so that one deep queue does not keep other connections waiting.
"""

import asyncio
import logging
import socket
from collections import deque

from nbdserve.errors import ProtocolError
from nbdserve.pagecache import is_resident
from nbdserve.protocol.constants import MAX_PAYLOAD, Command, CommandFlag, TransmissionFlag
from nbdserve.protocol.messages import Negotiated, ReplyMode, Request
from nbdserve.protocol.replies import replies_for
from nbdserve.protocol.requests import RequestDecoder
from nbdserve.protocol.validation import refusal
from nbdserve.server import slabs
from nbdserve.server.exports import Export
from nbdserve.server.inflight import InFlight
from nbdserve.server.limits import Limits
from nbdserve.server.operations import read_reply
from nbdserve.server.outbox import Outbox
from nbdserve.server.patience import Patience
from nbdserve.tlssocket import TlsSocket

__all__ = ["Transmission"]

log = logging.getLogger(__name__)

_HIGH_WATER = 2 << 20
_MOST_SLABS = 4
_TURN_REQUESTS = 128
_SHARED_TURN = 128 << 10  # bytes of hot reads, while other connections are served too
_TURN_PIECES = 8  # of a long payload; a client can send some 200 KiB of it at once
_LARGE = 64 << 10  # from here on sendfile costs less than a copy

_READ = int(Command.READ)
_WRITE = int(Command.WRITE)
_FLUSH = int(Command.FLUSH)
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
        sock: socket.socket | TlsSocket,
        export: Export,
        negotiated: Negotiated,
        limits: Limits,
        *,
        peer: str,
    ) -> None:
        self._sock = sock
        self._device = export.device
        self._negotiated = negotiated
        self._peer = peer
        self._replies = replies_for(negotiated.mode)
        self._loop = asyncio.get_running_loop()
        self._finished: asyncio.Future[None] = self._loop.create_future()
        self._outbox = Outbox(sock, self._loop, on_progress=self._dispatch, on_error=self._lost)
        self._in_flight = InFlight(
            export.device, self._replies, limits, peer=peer, on_answers=self._answer
        )
        self._patience = Patience()
        facts = negotiated.export
        self._size = facts.size
        self._hot_length = MAX_PAYLOAD if facts.minimum == 1 else 0
        self._is_hot_writable = facts.minimum == 1 and not facts.flags & TransmissionFlag.READ_ONLY
        self._queue: deque[Request] = deque()  # received, not started
        self._slabs: list[memoryview] = []  # the outbox may still send from these; the last is
        self._used = 0  # filled up to here
        self._filled = 0  # bytes that hot reads have filled so far
        self._reading = False
        self._stopping = False
        self._turn: asyncio.Handle | None = None
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
            memory=slabs.payload_memory,
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
        plain = request.type == _WRITE and not request.flags & _NOT_HOT
        if plain and self._is_hot_writable and request.offset + request.length <= self._size:
            return True
        return refusal(request, self._negotiated) is None

    def _readable(self) -> None:
        """Receive and serve; then wait on the spot for what the client sends upon its answers."""
        if not self._receive():
            return
        pieces = _TURN_PIECES
        while pieces and self._decoder.is_amid_payload and self._receive():
            pieces -= 1
        tries = left = self._patience.tries()
        if not left:
            return
        most_requests, most_bytes = self.requests + _TURN_REQUESTS, self._filled + slabs.SLAB_SIZE
        hit = False
        while left and self._is_waiting():
            if not self._receive():
                left -= 1
                continue
            hit, left = True, tries
            if self.requests >= most_requests or self._filled >= most_bytes:
                break
        self._patience.learn(hit=hit)

    def _is_waiting(self) -> bool:
        """Tell whether the next thing to happen is that the client sends something."""
        return self._reading and self._in_flight.is_idle and not self._outbox.size

    def _receive(self) -> bool:
        """Receive once and serve what came; False if nothing did."""
        try:
            count = self._sock.recv_into(self._decoder.buffer())
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as exc:
            self._lost(exc)
            return False
        if count == 0:
            self._lost(None)
            return False
        self._received(count)
        return True

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
        if wanted is self._reading:
            return
        if wanted:
            self._loop.add_reader(self._sock.fileno(), self._readable)
        else:
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
        if self._slabs and not self._outbox.size:
            self._give_slabs_back()
        if self._queue:
            self._serve_batch()
        self._watch()
        if self._stopping and not (self._queue or self._outbox.size) and self._in_flight.is_idle:
            self._finish()

    def _serve_batch(self) -> None:
        queue, size, replies = self._queue, self._size, self._replies
        read_nowait, hot = self._device.read_into_nowait, self._hot_length
        in_flight, outbox = self._in_flight, self._outbox
        batch: list[bytes | memoryview] = []
        slab, used = self._slabs[-1] if self._slabs else None, self._used
        filled = 0
        most = slabs.SLAB_SIZE if self._patience.is_alone else _SHARED_TURN
        left = _TURN_REQUESTS
        in_flight.gather()
        while queue and left:
            if (in_flight.count or outbox.size) and self._is_full(queue[0]):
                break
            left -= 1
            request = queue.popleft()
            flags, type_, _, offset, length, _ = request
            if (
                type_ != _READ
                or flags & _NOT_HOT
                or not 0 < length <= hot
                or offset + length > size
            ):
                self._start(request, batch)
                continue
            if filled and filled + length > most:
                queue.appendleft(request)
                break
            if length >= _LARGE and self._send_from_file(request, batch):
                batch = []
                filled += length
                continue
            if length > slabs.SLAB_SIZE:
                in_flight.read(request)
                continue
            if slab is None or used + length > slabs.SLAB_SIZE:
                slab, used = slabs.take(), 0
                self._slabs.append(slab)
            view = slab[used : used + length]
            if read_nowait(offset, view):
                batch += read_reply(request, view, replies)
                used += length
                filled += length
            else:
                in_flight.read(request)
        self._used = used
        self._filled += filled
        self._send(batch)

    def _send(self, batch: list[bytes | memoryview]) -> None:
        """Send the replies of a batch, and see to the rest of the queue."""
        batch += self._in_flight.take()  # writes that were made at once
        if batch:
            self._outbox.put(batch)
        if self._slabs and not self._outbox.size:
            self._give_slabs_back()
        queue = self._queue
        if queue and not self._is_full(queue[0]):
            self._turn = self._loop.call_soon(self._dispatch)

    def _send_from_file(self, request: Request, batch: list[bytes | memoryview]) -> bool:
        """Answer a READ out of the file its bytes lie in, after what is in `batch`, if they do."""
        file = self._device.file_range(request.offset, request.length)
        if file is None or not is_resident(file.fd, file.offset, request.length):
            return False
        batch.append(self._replies.data(request))
        self._outbox.put(batch, more=True)
        self._outbox.put_file(file, request.length)
        return True

    def _start(self, request: Request, batch: list[bytes | memoryview]) -> None:
        """Start any request, or put its refusal into `batch`."""
        if request.payload is not None:  # accepted before it was received
            self._in_flight.write(request)
            return
        if request.type == _DISC:
            self._queue.clear()  # the spec allows nothing after it
            self._stopping = True
            return
        refused = refusal(request, self._negotiated)
        if refused is None:
            if request.type == _FLUSH:
                self._in_flight.flush(request)
            else:
                self._in_flight.start(request)
            return
        log.debug("refused peer=%s request=%s: %s", self._peer, request, refused.text)
        batch.append(self._replies.error(request, *refused))

    def _is_full(self, request: Request) -> bool:
        """Tell whether a request has to wait.

        Also while so many slabs are not sent: they are given back when all is, which it may never
        be for a client that always has more under way.
        """
        waiting = self._outbox.size
        if waiting >= _HIGH_WATER or (waiting and len(self._slabs) >= _MOST_SLABS):
            return True
        return not self._in_flight.admits(request)

    def _answer(self, replies: list[bytes | memoryview]) -> None:
        self._outbox.put(replies)
        self._dispatch()

    # Ending

    def _lost(self, exc: OSError | None) -> None:
        busy = not self._in_flight.is_idle or self._queue or not self._decoder.is_idle
        if exc is not None or busy:
            log.info("client vanished peer=%s: %s", self._peer, exc or "closed without DISC")
        self._finish()

    def _finish(self) -> None:
        if not self._finished.done():
            self._finished.set_result(None)
            self._watch()

    async def _release(self) -> None:
        """Cancel and await what is under way; afterwards nothing refers to the socket."""
        self._finish()
        self._watch()  # once more: a cancelled `run` has cancelled `_finished` itself
        self._outbox.close()
        if self._turn is not None:
            self._turn.cancel()
        self._queue.clear()
        await self._in_flight.cancel()
        self._give_slabs_back()

    def _give_slabs_back(self) -> None:
        """Let go of the slabs; only when the outbox holds nothing."""
        for slab in self._slabs:
            slabs.give_back(slab)
        self._slabs.clear()
        self._used = 0
