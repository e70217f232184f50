"""The gate of a host: who may ask it now, and who waits.

All sources of a host share one, in the order they came; none exceeds its own `connections`. A
stream whose taker does nothing for a while would keep its place for nothing, and if the taker
waits for another request, for ever. So a place that lies idle is taken away when somebody else
waits for it; its stream asks again from where it was.

Invariant: places given are at most the window's limit, but for one extra a hedged request may
take, and never more than the highest `connections` of those who joined.
"""

import asyncio
from collections.abc import Callable

from nbdserve.sources.httpwindow import Window

__all__ = ["Gate", "Slot"]

# Seconds a taker may be busy with what it has. Where many decode on few cores, a piece waits long
# for its turn, and what its connection holds by then (megabytes) would be fetched twice.
_IDLE = 2.0


class Slot:
    """A place at a gate; give it back with `release`.

    Attributes:
        evicted: it was taken away while it lay idle.
    """

    __slots__ = ("_gate", "_on_evict", "evicted", "idle_since", "owner")

    def __init__(self, gate: "Gate", owner: object) -> None:
        self._gate = gate
        self._on_evict: Callable[[], None] | None = None
        self.owner = owner
        self.evicted = False
        self.idle_since: float | None = None

    def park(self, on_evict: Callable[[], None]) -> None:
        """Say that nobody waits for its bytes now; `on_evict` ends the request if it is taken."""
        self._on_evict = on_evict
        self.idle_since = asyncio.get_running_loop().time()
        self._gate.watch()

    def unpark(self) -> None:
        """Say that its bytes are waited for again."""
        self.idle_since = None

    def evict(self) -> None:
        """Take it away."""
        self.evicted = True
        if self._on_evict is not None:
            self._on_evict()
        self.release()

    def release(self) -> None:
        """Give it back; no harm twice."""
        self._gate.give_back(self)


class Gate:
    """Lets requests to one host through, up to the window's limit."""

    def __init__(self) -> None:
        self.window = Window(1)
        self._most: dict[object, int] = {}
        self._slots: list[Slot] = []
        self._waiting: list[tuple[asyncio.Future[Slot], object, bool]] = []
        self._timer: asyncio.TimerHandle | None = None

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return len(self._slots)

    def join(self, owner: object, most: int) -> None:
        """Let `owner` use the gate for up to `most` requests at once."""
        self._most[owner] = max(1, most)
        self.window.most = max(self._most.values())

    def leave(self, owner: object) -> None:
        """Undo `join`; no harm twice."""
        self._most.pop(owner, None)
        if self._most:
            self.window.most = max(self._most.values())

    async def acquire(self, owner: object, *, low: bool = False) -> Slot:
        """Wait for a place.

        Args:
            owner: who joined before.
            low: come after all others, and leave half of the places free.
        """
        slot = self.acquire_nowait(owner, low=low)
        if slot is not None:
            return slot
        if not low:
            self.window.wanted()
        future: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        self._waiting.append((future, owner, low))
        self.watch()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                future.result().release()
            raise
        finally:
            self._waiting = [entry for entry in self._waiting if entry[0] is not future]

    def acquire_nowait(
        self, owner: object, *, low: bool = False, extra: bool = False
    ) -> Slot | None:
        """Take a place if one is free and nobody waits for it; `extra` goes one past the limit."""
        if extra:
            free = self.in_flight < min(self.window.limit + 1, self.window.most)
            if not free or self._count(owner) >= self._most[owner]:
                return None
        elif not self._admits(owner, low=low) or any(
            self._admits(other, low=is_low) for f, other, is_low in self._waiting if not f.done()
        ):
            return None
        return self._give(owner)

    def give_back(self, slot: Slot) -> None:
        """Take a place back, and give it to who waits."""
        if slot in self._slots:
            self._slots.remove(slot)
            self._wake()

    def received(self, length: int) -> None:
        """Count bytes that came from the host."""
        before = self.window.limit
        self.window.received(length, asyncio.get_running_loop().time())
        if any(not low for _, _, low in self._waiting):
            self.window.wanted()
        if self.window.limit > before:
            self._wake()

    def watch(self) -> None:
        """See to it that idle places are taken away while somebody waits."""
        if self._timer is not None or not any(not low for _, _, low in self._waiting):
            return
        idle = [slot.idle_since for slot in self._slots if slot.idle_since is not None]
        if idle:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(min(idle) + _IDLE, self._take_idle)

    def _take_idle(self) -> None:
        self._timer = None
        before = asyncio.get_running_loop().time() - _IDLE
        idle = [(s.idle_since, s) for s in self._slots if s.idle_since is not None]
        idle.sort(key=lambda pair: pair[0])
        for _, owner, low in list(self._waiting):
            helpful = [s for since, s in idle if since <= before and self._helps(s, owner)]
            if helpful and not low:
                helpful[0].evict()
                break
        self.watch()

    def _helps(self, slot: Slot, owner: object) -> bool:
        """Whether `owner` could go on if this place were free."""
        return self._count(owner) < self._most.get(owner, 0) or slot.owner is owner

    def _wake(self) -> None:
        for low in (False, True):
            for future, owner, is_low in self._waiting:
                if is_low == low and not future.done() and self._admits(owner, low=low):
                    future.set_result(self._give(owner))

    def _give(self, owner: object) -> Slot:
        slot = Slot(self, owner)
        self._slots.append(slot)
        return slot

    def _admits(self, owner: object, *, low: bool) -> bool:
        limit = self.window.limit
        if low:
            limit = max(1, limit // 2)
            if any(not f.done() and not is_low for f, _, is_low in self._waiting):
                return False
        most = self._most.get(owner, 0)  # none for one that has left
        return self.in_flight < limit and self._count(owner) < most

    def _count(self, owner: object) -> int:
        return sum(slot.owner is owner for slot in self._slots)
