"""What one connection has under way: bounded, answered in groups, awaited at the end.

A request that has to wait gets a task of its own. Those that end in the same turn of the event
loop are answered together: one sendmsg and one look at the queue for a whole group of them.

Bounds: at most `max_in_flight` requests and `max_in_flight_bytes` of their data; one request is
always admitted, however large.
"""

import asyncio
import functools
import logging
from collections.abc import Callable

from nbdserve.device import Capability, Device
from nbdserve.protocol.constants import Command, CommandFlag
from nbdserve.protocol.errno import wire_failure
from nbdserve.protocol.messages import Request
from nbdserve.protocol.replies import Replies
from nbdserve.server import slabs
from nbdserve.server.limits import Limits
from nbdserve.server.operations import Buffers, perform, read_into, read_reply

__all__ = ["InFlight"]

log = logging.getLogger(__name__)

_MOST_WARNINGS = 16  # distinct failures told at WARNING a connection; the rest is DEBUG

_READ = int(Command.READ)
_WRITE = int(Command.WRITE)


class InFlight:
    """The requests of a connection that were started and not yet answered.

    Args:
        device: what carries them out.
        replies: encodes their answers.
        limits: bounds on how many there may be.
        peer: how logs call the client.
        on_answers: called with the replies of those that ended, never from within a call to this.
    """

    def __init__(
        self,
        device: Device,
        replies: Replies,
        limits: Limits,
        *,
        peer: str,
        on_answers: Callable[[list[bytes | memoryview]], None],
    ) -> None:
        self._device = device
        self._replies = replies
        self._most = limits.max_in_flight
        self._most_bytes = limits.max_in_flight_bytes
        self._peer = peer
        self._on_answers = on_answers
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._bytes = 0
        self._answers: list[bytes | memoryview] = []
        self._delivery: asyncio.Handle | None = None
        self._gathering = False
        self._cancelled = False
        self._can_fua = bool(device.info.can & Capability.FUA)
        self._warned: set[str] = set()
        self.count = 0
        """Requests started and not yet ended; their answers may still be on their way."""

    @property
    def is_idle(self) -> bool:
        """Whether everything was ended and its answer handed on."""
        return not self.count and self._delivery is None

    def admits(self, request: Request) -> bool:
        """Tell whether one more request may be started."""
        if not self.count:
            return True
        return self.count < self._most and self._bytes + _cost(request) <= self._most_bytes

    def start(self, request: Request) -> None:
        """Carry out a validated request other than DISC in a task of its own."""
        self.count += 1
        self._bytes += _cost(request)
        self._start(request, None)

    def read(self, request: Request) -> None:
        """Carry out a validated READ of some bytes, without a task if the device can."""
        self.count += 1
        self._bytes += request.length
        try:
            view = memoryview(bytearray(request.length))
            done = functools.partial(self._read, request, view)
            begun = self._device.begin_read(request.offset, view, done)
        except Exception as exc:  # noqa: BLE001 -- MemoryError, or a device that is at fault
            self._ended(request, (self._failed(request, exc),))
            return
        if not begun:
            self._start(request, view)

    def write(self, request: Request) -> None:
        """Carry out a validated WRITE, without a task if the device can."""
        payload, fua = request.payload, bool(request.flags & CommandFlag.FUA)
        if not payload or (fua and not self._can_fua):
            self.start(request)
            return
        self.count += 1
        self._bytes += request.length
        done = functools.partial(self._written, request)
        try:
            begun = self._device.write_nowait(request.offset, payload, fua=fua, done=done)
        except Exception as exc:  # noqa: BLE001 -- MemoryError, of a disk in memory, say
            done(exc)
            return
        if not begun:
            self.count -= 1
            self._bytes -= request.length
            self.start(request)

    def flush(self, request: Request) -> None:
        """Carry out a validated FLUSH, without a task if the device can."""
        self.count += 1
        if not self._device.flush_nowait(functools.partial(self._written, request)):
            self.count -= 1
            self.start(request)

    def gather(self) -> None:
        """Hand no answers on until `take`: a batch is being started that some of them belong to."""
        self._gathering = True

    def take(self) -> list[bytes | memoryview]:
        """Return the answers there are, and hand on what comes from now on."""
        self._gathering = False
        if self._delivery is not None:
            self._delivery.cancel()
            self._delivery = None
        answers, self._answers = self._answers, []
        return answers

    async def cancel(self) -> None:
        """Cancel what is under way, wait for its end, and drop the answers.

        What was begun without a task goes on; its device waits for it when it is closed.
        """
        self._cancelled = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._delivery is not None:
            self._delivery.cancel()
            self._delivery = None
        self._answers.clear()

    def _start(self, request: Request, view: memoryview | None) -> None:
        task = self._loop.create_task(self._carry_out(request, view))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry_out(self, request: Request, view: memoryview | None) -> None:
        try:
            if view is None:
                reply = await perform(self._device, request, self._replies)
            else:
                reply = await read_into(self._device, request, view, self._replies)
        except asyncio.CancelledError:  # only by `cancel`: nobody counts any more
            raise
        except Exception as exc:  # noqa: BLE001 -- whatever a device raises is that request's answer
            reply = (self._failed(request, exc),)
        else:
            self._give_back(request)
        self._ended(request, reply)

    def _read(self, request: Request, view: memoryview, error: Exception | None) -> None:
        if not self._cancelled:
            failed = error and (self._failed(request, error),)
            self._ended(request, failed or read_reply(request, view, self._replies))

    def _written(self, request: Request, error: Exception | None) -> None:
        if error is None:
            self._give_back(request)
        if not self._cancelled:
            failed = error and self._failed(request, error)
            self._ended(request, (failed or self._replies.done(request),))

    def _give_back(self, request: Request) -> None:
        """Let others use the memory of a payload; after a failure somebody may still read it."""
        if request.payload is not None:
            slabs.give_payload_back(request.payload)

    def _ended(self, request: Request, reply: Buffers) -> None:
        self.count -= 1
        self._bytes -= _cost(request)
        self._answers += reply
        if self._delivery is None and not self._gathering:
            self._delivery = self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._delivery = None
        answers, self._answers = self._answers, []
        self._on_answers(answers)

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


def _cost(request: Request) -> int:
    """Return how much data a request keeps in memory until it is answered, in bytes."""
    return request.length if request.type in (_READ, _WRITE) else 0
