"""Who may use an exclusive export, and who may write to it while a migration hands it over.

One client holds an exclusive export and may write to it. For the time of a handover one more may
come in; it reads, and its first write takes the lease from the first, for good. Decisions only: a
client is known by what `Tenant` says, and `LeasedDevice` makes its writes ask.

Invariants: at most one client may write at any moment, and a write of who holds the lease begins
only when no write of anybody else is under way, so that none of a client that was dropped, or that
handed over, lands on top of it. A client is never displaced for another's sake: one that is gone
is noticed by its socket.
"""

import asyncio
import logging
from collections import Counter
from typing import NamedTuple, Protocol

from nbdserve.errors import ReadOnlyError

__all__ = ["Lease", "LeaseFacts", "Tenant"]

log = logging.getLogger(__name__)


class Tenant(Protocol):
    """A client, as a lease sees it; told from others by identity."""

    @property
    def peer(self) -> str:
        """How logs call it."""

    @property
    def is_leaving(self) -> bool:
        """Whether its end is certain: it has closed its socket, or was aborted."""

    def abort(self) -> None:
        """End it at once; it leaves the lease a little later."""


class LeaseFacts(NamedTuple):
    """A lease, to be looked at.

    Attributes:
        holder: the client that may write, as logs call it.
        other: the client that a handover let in, or that has handed over.
        seconds: how long a handover still runs; None where there is none.
        passed: whether the lease went from `other` to `holder`.
    """

    holder: str | None
    other: str | None
    seconds: float | None
    passed: bool


class Lease:
    """The lease of one export. One event loop, no threads.

    Args:
        export: its name, for messages.
    """

    def __init__(self, export: str) -> None:
        self._export = export
        self._holder: Tenant | None = None
        self._other: Tenant | None = None  # not yet the holder, or, if passed, no longer
        self._passed = False
        self._timer: asyncio.TimerHandle | None = None  # runs while a handover does
        self._until = 0.0  # on the loop's clock
        self._writes: Counter[Tenant] = Counter()  # under way
        self._change: asyncio.Future[None] | None = None  # what waits for anything to change

    def facts(self) -> LeaseFacts:
        """Tell how it stands."""
        seconds = None
        if self._timer is not None:
            seconds = max(self._until - asyncio.get_running_loop().time(), 0.0)
        return LeaseFacts(_peer(self._holder), _peer(self._other), seconds, self._passed)

    # Coming and going

    async def enter(self, tenant: Tenant) -> str | None:
        """Let a client in; wait for one before it that is leaving.

        Returns:
            Why it may not come in, for its user, or None if it is in.
        """
        while self._holder is not None and (self._other is not None or self._timer is None):
            inside = [one for one in (self._holder, self._other) if one is not None]
            if not any(one.is_leaving for one in inside):
                return self._refusal(self._holder)
            await self._changed()
        if self._holder is None:
            self._holder = tenant
        else:
            self._other = tenant
        return None

    def leave(self, tenant: Tenant) -> None:
        """Note that a client has gone; may be called of one that is not in."""
        if tenant is self._holder:
            self._holder = None
            if not self._passed:  # the first has gone: who came to take over has what it held
                self._holder, self._other = self._other, None
                self._stop()
        elif tenant is self._other:
            self._other = None
            if self._passed:
                self._passed = False
                self._stop()
        self._tell()

    # Handing over

    def begin_handover(self, seconds: float) -> None:
        """Let a second client come in; one that runs already lasts that long from now on."""
        self._stop()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, self._expire)
        self._until = loop.time() + seconds
        log.info("handover begun export=%r seconds=%g", self._export, seconds)
        self._tell()

    def end_handover(self) -> str | None:
        """End it, and drop the client without the lease; return who that was, if anybody."""
        self._stop()
        if self._other is None:
            return None
        log.info("handover ended export=%r dropped=%s", self._export, self._other.peer)
        self._other.abort()
        return self._other.peer

    # Writing

    async def begin_write(self, tenant: Tenant) -> None:
        """Wait until a client may write; `end_write` is called when it has.

        Raises:
            ReadOnlyError: it has no lease, or has it no more.
        """
        while not self.begin_write_nowait(tenant):
            await self._changed()

    def begin_write_nowait(self, tenant: Tenant) -> bool:
        """Begin a write if that takes no waiting; else it is to wait by `begin_write`.

        Raises:
            ReadOnlyError: as `begin_write`.
        """
        if tenant is not self._holder:
            self._claim(tenant)
        if self._writes.total() > self._writes[tenant]:
            return False
        self._writes[tenant] += 1
        return True

    def end_write(self, tenant: Tenant) -> None:
        """Note that a write that was begun has ended, whether well or not."""
        self._writes[tenant] -= 1
        if not self._writes[tenant]:
            del self._writes[tenant]
            self._tell()

    def _claim(self, tenant: Tenant) -> None:
        """Give the lease to the client that came to take over."""
        if tenant is not self._other or self._passed or self._timer is None:
            raise ReadOnlyError(self._no_lease())
        self._holder, self._other = self._other, self._holder
        self._passed = True
        log.info(
            "export handed over export=%r from=%s to=%s",
            self._export,
            _peer(self._other),
            tenant.peer,
        )

    def _no_lease(self) -> str:
        holder = _peer(self._holder) or "another client"
        if self._passed:
            return f'export "{self._export}" was handed over to {holder}; this client may only read'
        return f'export "{self._export}" is held by {holder}, and no handover runs any more'

    def _refusal(self, holder: Tenant) -> str:
        text = f'export "{self._export}" is in use by {holder.peer}'
        if self._other is not None:
            return f"{text} and {self._other.peer}, in a handover"
        return f"{text}; end that client, or start a handover (nbdctl export handover)"

    def _expire(self) -> None:
        if self._other is not None:
            log.warning("a handover has run out of time export=%r", self._export)
        self.end_handover()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Waiting: one future for all who do, as a change is rare and each looks for itself

    async def _changed(self) -> None:
        if self._change is None:
            self._change = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._change)

    def _tell(self) -> None:
        if self._change is not None:
            self._change.set_result(None)
            self._change = None


def _peer(tenant: Tenant | None) -> str | None:
    return None if tenant is None else tenant.peer
