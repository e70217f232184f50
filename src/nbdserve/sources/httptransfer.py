"""One Range request to one mirror, and the bytes of its answer.

The request is a task of its own, so that who waits for its first byte may look at the clock in
between without ending it. Invariant: a transfer that was closed has given back its place at the
gate and, if its answer was not read to the end, its connection is gone.
"""

import asyncio
import time

import aiohttp

from nbdserve.errors import CorruptDataError
from nbdserve.sources.httpanswer import check_range
from nbdserve.sources.httpbudget import Budget
from nbdserve.sources.httpcheck import MirrorCheck
from nbdserve.sources.httpgate import Gate, Slot
from nbdserve.sources.httpmirror import Mirror
from nbdserve.sources.httppace import RequestPace
from nbdserve.sources.httpretry import FAILURES, TransientError

__all__ = ["Transfer"]

# A connection that breaks after so much did its work; one that breaks before is a push.
_DID_ITS_WORK = 1 << 20


class Transfer:
    """A range that is being fetched from a mirror.

    Args:
        mirror: who is asked.
        slot: the place at its gate; the transfer's from now on.
        offset: first byte.
        end: the byte after the last.
        budget: what it is counted in.
        check: looks at the mirror before it is asked for the first time.
    """

    def __init__(
        self, mirror: Mirror, slot: Slot, offset: int, end: int, budget: Budget, check: MirrorCheck
    ) -> None:
        self.mirror = mirror
        self.slot = slot
        self._began = self._clock = time.monotonic()
        self.position = offset
        """Where the next bytes belong."""
        self.offset = offset
        """Where its first byte belongs."""
        self._end = self._told = end  # asked for, and in the answer by its own Content-Range
        self._budget = budget
        self._check = check
        self._gate: Gate = mirror.origin.gate
        self._pace = RequestPace(mirror.pace)
        self._response: aiohttp.ClientResponse | None = None
        self._asking: asyncio.Task[aiohttp.ClientResponse] | None = None
        self._reserved = 0
        self._closed = False

    @property
    def has_begun(self) -> bool:
        """Whether bytes have come."""
        return self.position > self.offset

    @property
    def is_silent(self) -> bool:
        """Whether nothing has come since the verdict before the last."""
        return not self.has_begun or self._pace.was_silent

    def patience(self) -> float:
        """Return the seconds to wait before `is_slow` is worth asking."""
        if self.has_begun:
            return self._pace.patience
        now = time.monotonic()
        allowed = self.mirror.pace.first_byte_patience(now, busy=self._gate.in_flight > 1)
        return max(0.0, self._clock + allowed - now)

    def is_slow(self) -> bool:
        """Whether it is slower than nearly all others of late."""
        now = time.monotonic()
        if self.has_begun:
            return self._pace.is_slow(self._gate.in_flight, now)
        return self.patience() == 0

    def forgive(self) -> None:
        """Wait longer for the next verdict."""
        self._clock = time.monotonic()
        self._pace.forgive()

    async def next(self, patience: float | None = None) -> bytes | None:
        """Wait for the next bytes; None if none came within `patience` seconds.

        Cancelled, it loses no byte.

        Raises:
            one of FAILURES: this transfer is over.
        """
        if self._response is None and not await self._answered(patience):
            return None
        assert self._response is not None
        began = time.monotonic()
        limit = asyncio.timeout(patience)
        try:
            async with limit:
                chunk = await self._response.content.readany()
        except FAILURES as exc:
            if limit.expired():
                self._pace.waited(time.monotonic() - began)
                return None
            chunk = _salvage(self._response.content)
            if not chunk:
                raise self._broken(exc) from exc
        now = time.monotonic()
        if not self.has_begun:
            self.mirror.pace.first_byte(now - self._began, now)
        return self._took(chunk, now - began, now)

    def pushed_back(self) -> None:
        """Tell the gate that the host did not bear this request, unless it did most of it."""
        if self.position - self.offset < _DID_ITS_WORK:
            self._gate.window.pushed_back(self._began, time.monotonic())

    def close(self) -> None:
        """End it; no harm twice."""
        if self._closed:
            return
        self._closed = True
        if self._response is not None:
            self._response.release()  # which ends the connection unless all of it was read
        elif self._asking is not None:
            self._asking.cancel()
            self._asking.add_done_callback(_close_answer)
        self._budget.release(self._reserved)
        self.slot.release()

    def _broken(self, exc: Exception) -> Exception:
        if isinstance(exc, aiohttp.ClientPayloadError):
            return TransientError(f"the answer broke off at {self.position}", pushed_back=True)
        return exc

    async def _answered(self, patience: float | None) -> bool:
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
        await asyncio.wait({self._asking}, timeout=patience)
        if not self._asking.done():
            # a loop that was held up sees the clock first and the answer after it
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        if not self._asking.done():
            return False
        self._response = self._asking.result()
        return True

    async def _ask(self) -> aiohttp.ClientResponse:
        await self._check.passed(self.mirror)
        entity = self.mirror.entity
        assert entity is not None
        length = self._end - self.offset
        self._budget.reserve(length)
        self._reserved = length
        self._budget.take_request()
        self.mirror.requests += 1
        headers = {"Range": f"bytes={self.offset}-{self._end - 1}"}
        if entity.if_range is not None:
            headers["If-Range"] = entity.if_range
        response = await self.mirror.origin.get(headers)
        try:
            last = self._end - 1
            self._told = check_range(response, self.mirror.origin, entity, self.offset, last)
        except BaseException:
            response.close()
            raise
        self.mirror.origin.remember(response)
        return response

    def _took(self, chunk: bytes, waited: float, now: float) -> bytes:
        if not chunk:
            raise TransientError(f"the answer ended at {self.position}")
        if self.position + len(chunk) > self._told:
            raise CorruptDataError(
                f"http: {self.mirror.name}: more bytes than its answer said, at {self.offset}; "
                "the server is at fault"
            )
        self.position += len(chunk)
        self._reserved -= len(chunk)
        self._budget.take_bytes(len(chunk))
        self._pace.received(len(chunk), waited, self._gate.in_flight, now)
        self._gate.received(len(chunk))
        return chunk


def _salvage(content: aiohttp.StreamReader) -> bytes:
    """Take what came before the connection broke.

    aiohttp raises for the break before it gives out what it holds, which is up to half a MiB
    where the taker is slow: on a server that cuts connections, a tenth of all bytes would be
    fetched twice. There is no public way to them; without this one they are fetched twice.
    """
    take = getattr(content, "_read_nowait", None)
    return b"" if take is None else bytes(take(-1))


def _close_answer(task: asyncio.Task[aiohttp.ClientResponse]) -> None:
    """Let go of the answer of a request that nobody waits for any more."""
    if not task.cancelled() and task.exception() is None:
        task.result().release()
