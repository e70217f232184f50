"""A lock on ranges of clusters: writers of different clusters pass, of the same one queue.

First come, first served: a claim waits for every earlier claim it overlaps, so none starves and,
as nobody ever waits for a later one, none deadlocks. A request claims its whole range at once;
there are only as many claims as requests in flight, so a list is searched faster than a tree.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType

__all__ = ["RangeLock"]


class RangeLock:
    """Mutual exclusion of overlapping ranges, within one event loop.

    Use it as `async with lock.hold(first, stop):`.
    """

    def __init__(self) -> None:
        self._claims: list[_Claim] = []

    def hold(self, first: int, stop: int) -> "_Claim":
        """Return a context that holds the clusters from `first` to before `stop`."""
        return _Claim(self._claims, first, stop)

    def hold_nowait(self, first: int, stop: int) -> Callable[[], None] | None:
        """Hold clusters at once; return what gives them up, or None if another has any of them."""
        if any(claim.overlaps(first, stop) for claim in self._claims):
            return None
        claim = _Claim(self._claims, first, stop)
        self._claims.append(claim)
        return claim.release


class _Claim:
    __slots__ = ("_claims", "_event", "_first", "_held", "_stop")

    def __init__(self, claims: list["_Claim"], first: int, stop: int) -> None:
        self._claims = claims
        self._first = first
        self._stop = stop
        self._held = True
        self._event: asyncio.Event | None = None  # made by the first claim that waits for this

    async def __aenter__(self) -> None:
        earlier = [c for c in self._claims if c.overlaps(self._first, self._stop)]
        self._claims.append(self)
        try:
            for claim in earlier:
                await claim.released()
        except BaseException:
            self.release()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def overlaps(self, first: int, stop: int) -> bool:
        """Tell whether this claim shares a cluster with another range."""
        return self._first < stop and first < self._stop

    async def released(self) -> None:
        """Wait until this claim is given up."""
        if self._held:
            if self._event is None:
                self._event = asyncio.Event()
            await self._event.wait()

    def release(self) -> None:
        """Give the claim up; once."""
        self._held = False
        self._claims.remove(self)
        if self._event is not None:
            self._event.set()
