"""Filling a cache on disk in the background, until the origin is no longer needed.

One walk from the first absent chunk to the last, two runs at a time, so that a far origin is asked
for the next one while this one is on its way. It never evicts what it brought itself: it ends when
the bound is reached. While another process adds to the cache it follows that one.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from nbdserve.cachestore.content import Content
from nbdserve.cachestore.store import Store
from nbdserve.errors import DeviceError
from nbdserve.layers.cacheruns import RUN

__all__ = ["BackgroundFill"]

log = logging.getLogger(__name__)

_AT_ONCE: Final = 2
_FIRST_PAUSE: Final = 1.0  # seconds between two tries while the origin is away; then twice as long
_LONGEST_PAUSE: Final = 60.0
_LOOK_AGAIN: Final = 1.0  # seconds between two looks at what another process has added


class BackgroundFill:
    """The task that fills one cache; owned by its layer.

    Attributes:
        state: running, waiting (for the origin, or for another process), done or stopped.
    """

    def __init__(
        self,
        content: Content,
        store: Store,
        bring: Callable[[int, int, None], Awaitable[None]],
        rate: int | None,
    ) -> None:
        """Prepare it.

        Args:
            content: what is filled.
            store: whose bound holds.
            bring: brings a range (offset, length) into the cache.
            rate: bytes a second at most; None is no limit.
        """
        self.state = "running"
        self._content = content
        self._store = store
        self._bring = bring
        self._rate = rate
        self._cursor = 0
        self._under_way = 0
        self._due = 0.0
        self._told = -1
        self._warned = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """End it, done or not."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        self._tell()
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(_AT_ONCE):
                    workers.create_task(self._work())
        except* Exception:
            log.exception("background fill failed file=%s", self._content.name)
        self._end()

    def _end(self) -> None:
        content = self._content
        if content.absent_from(0) * content.chunk >= content.size:
            self.state = "done"
            log.info(
                "cache is filled, the origin is no longer needed file=%s size=%d",
                content.name, content.size,
            )  # fmt: skip
        else:
            self.state = "stopped"
            log.warning(
                "cache cannot be filled; give more size= or make room file=%s present=%d size=%d "
                "limit=%d",
                content.name, content.present, content.size, self._store.bound,
            )  # fmt: skip

    async def _work(self) -> None:
        while (run := self._next()) is not None:
            offset, length = run
            self._under_way += length
            await self._until_writable(offset)
            await self._pace(length)
            await self._persist(offset, length)
            self._under_way -= length
            self._tell()

    def _next(self) -> tuple[int, int] | None:
        """Take the next range to bring; None at the end, or if it would be in vain."""
        content, chunk = self._content, self._content.chunk
        first = content.absent_from(self._cursor)
        offset = first * chunk
        length = min(max(RUN, chunk), content.size - offset)
        # the last 16th is where eviction begins
        room = self._store.bound - self._store.bound // 16
        if length <= 0 or content.stored + self._under_way + length > room:
            return None
        self._cursor = first + -(-length // chunk)
        return offset, length

    async def _until_writable(self, offset: int) -> None:
        """Wait while another process adds to the cache, and follow it; nothing is brought twice."""
        number = offset // self._content.chunk
        while not self._content.writable and self._content.absent_from(number) == number:
            self.state = "waiting"
            await asyncio.sleep(_LOOK_AGAIN)
            await self._content.refresh()

    async def _pace(self, length: int) -> None:
        if self._rate is not None:
            now = time.monotonic()
            self._due = max(self._due, now) + length / self._rate
            await asyncio.sleep(self._due - length / self._rate - now)

    async def _persist(self, offset: int, length: int) -> None:
        """Bring a range, however often the origin fails."""
        pause = _FIRST_PAUSE
        while True:
            try:
                await self._bring(offset, length, None)
            except DeviceError as exc:
                level = logging.DEBUG if self._warned else logging.WARNING
                self._warned = True
                log.log(level, "background fill goes on later file=%s: %s", self._content.name, exc)
                self.state = "waiting"
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                self.state = "running"
                self._warned = False
                return

    def _tell(self) -> None:
        """Log each tenth that is reached."""
        tenth = 10 * self._content.present // (self._content.size or 1)
        if tenth > self._told:
            self._told = tenth
            log.info(
                "cache is being filled file=%s present=%d size=%d",
                self._content.name, self._content.present, self._content.size,
            )  # fmt: skip
