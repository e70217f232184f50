"""What an operator lets a source take from its mirrors: requests, bytes, bytes a second.

Beyond a total, reads fail with a text; beyond the rate, they wait. The totals are of this process
and export, from its opening on.
"""

import asyncio
from typing import NoReturn

from nbdserve.errors import SourceUnavailableError

__all__ = ["Budget", "BudgetSpentError", "HedgeAllowance", "TokenBucket"]

_BURST = 0.25  # seconds' worth of bytes at once: as long as pieces are in coming at a low rate
_SPARE = 0.9  # of a total; beyond it every request is kept for what must be read

_HEDGES_FIRST = 2.0  # before a source has made enough requests to have earned any
_HEDGES_EACH = 0.05  # for each request: at most 5 % more of them
_HEDGES_MOST = 10.0


class BudgetSpentError(SourceUnavailableError):
    """A total is reached: no fault of any mirror."""


class TokenBucket:
    """Paces a flow of bytes. Pure: moments are arguments, in seconds.

    Args:
        rate: bytes a second.
    """

    def __init__(self, rate: int) -> None:
        self._rate = max(1, rate)
        self._full = self._rate * _BURST
        self._tokens = self._full
        self._at: float | None = None

    def take(self, length: int, now: float) -> None:
        """Take so many bytes; more than there are is a debt."""
        self._fill(now)
        self._tokens -= length

    def wait(self, now: float) -> float:
        """Return for how many seconds nothing more may be taken."""
        self._fill(now)
        return max(0.0, -self._tokens / self._rate)

    def _fill(self, now: float) -> None:
        passed = 0.0 if self._at is None else now - self._at
        self._tokens = min(self._full, self._tokens + passed * self._rate)
        self._at = now


class HedgeAllowance:
    """How many requests may be made twice: a few, and a small part of all."""

    def __init__(self) -> None:
        self._allowed = _HEDGES_FIRST

    def earn(self) -> None:
        """Count a request that was asked for."""
        self._allowed = min(_HEDGES_MOST, self._allowed + _HEDGES_EACH)

    def may(self) -> bool:
        """Whether one more may be made."""
        return self._allowed >= 1

    def spend(self) -> None:
        """Count one."""
        self._allowed -= 1


class Budget:
    """The totals and the rate of a source.

    Args:
        name: how messages call the source.
        max_requests: None for no bound, as with the others.
        max_bytes: of bodies.
        max_rate: bytes a second.
    """

    def __init__(
        self,
        name: str,
        max_requests: int | None = None,
        max_bytes: int | None = None,
        max_rate: int | None = None,
    ) -> None:
        self._name = name
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._bucket = None if max_rate is None else TokenBucket(max_rate)
        self._reserved = 0
        self.requests = 0
        """Requests made so far."""
        self.received = 0
        """Bytes of bodies received so far."""

    def take_request(self) -> None:
        """Count a request about to be made.

        Raises:
            BudgetSpentError: that would be one too many.
        """
        if self._max_requests is not None and self.requests >= self._max_requests:
            self._refuse("max-requests", self._max_requests)
        self.requests += 1

    def reserve(self, length: int) -> None:
        """Set aside the bytes a request asks for; `release` what is left of them at its end.

        Raises:
            BudgetSpentError: there are not so many left.
        """
        if self._max_bytes is not None:
            if self.received + self._reserved + length > self._max_bytes:
                self._refuse("max-bytes", self._max_bytes)
            self._reserved += length

    def release(self, length: int) -> None:
        """Undo `reserve` for bytes that were not received."""
        if self._max_bytes is not None:
            self._reserved -= length

    def take_bytes(self, length: int, *, reserved: bool = True) -> None:
        """Count bytes that came."""
        self.received += length
        if reserved:
            self.release(length)
        if self._bucket is not None:
            self._bucket.take(length, asyncio.get_running_loop().time())

    async def pace(self) -> None:
        """Wait until the rate allows more bytes."""
        if self._bucket is not None:
            loop = asyncio.get_running_loop()
            # others take meanwhile, so it is asked again; time is all that is waited for
            while wait := self._bucket.wait(loop.time()):  # noqa: ASYNC110
                await asyncio.sleep(wait)

    @property
    def is_spare(self) -> bool:
        """Whether there is enough left for requests that need not be made."""
        used = 0.0
        if self._max_requests is not None:
            used = self.requests / max(1, self._max_requests)
        if self._max_bytes is not None:
            used = max(used, (self.received + self._reserved) / max(1, self._max_bytes))
        waits = self._bucket is not None and self._bucket.wait(asyncio.get_running_loop().time())
        return used < _SPARE and not waits

    def _refuse(self, key: str, total: int) -> NoReturn:
        raise BudgetSpentError(
            f"http: {self._name}: the budget {key}={total} is spent; "
            "raise it, or open the export again"
        )
