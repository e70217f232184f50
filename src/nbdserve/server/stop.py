"""When to stop: once asked, drain; asked again, at once."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from nbdserve.threads import run_io

__all__ = ["Stop"]

T = TypeVar("T")

log = logging.getLogger(__name__)


class Stop:
    """Waits for SIGTERM and SIGINT; what SIGHUP does is told by `on_hang_up`."""

    def __init__(self) -> None:
        self.told = asyncio.Event()
        self.told_again = asyncio.Event()
        self.on_hang_up: Callable[[], None] | None = None
        """Reads files anew, and so blocks: run in a thread, never twice at once."""
        self._hang_ups = 0
        self._hanging_up: asyncio.Task[None] | None = None
        self.status = 128 + signal.SIGTERM
        """The exit status of what a signal cut short, as a shell tells it."""

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Handle the signals during the block."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.tell, number)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)
            if self._hanging_up is not None:
                self._hanging_up.cancel()

    def tell(self, number: int) -> None:
        """Ask to stop, as a signal does."""
        log.info("asked to stop signal=%s", signal.Signals(number).name)
        self.status = 128 + number
        if self.told.is_set():
            self.told_again.set()
        self.told.set()

    async def unless_told(self, work: Coroutine[Any, Any, T], *, default: T) -> T:
        """Do `work` to its end, or cancel it and return `default` once asked to stop."""
        return await _until(self.told, work, default)

    async def unless_told_again(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work` to its end, or cancel it once asked to stop at once."""
        await _until(self.told_again, work, None)

    def _hang_up(self) -> None:
        if self.on_hang_up is None:
            log.warning("SIGHUP does not reload yet; restart to read the configuration again")
            return
        self._hang_ups += 1
        if self._hanging_up is None:
            self._hanging_up = asyncio.get_running_loop().create_task(self._reload())

    async def _reload(self) -> None:
        try:
            while self._hang_ups and self.on_hang_up is not None:
                self._hang_ups = 0  # one that comes from now on means what is there then
                await run_io(self.on_hang_up)
        finally:
            self._hanging_up = None


async def _until(event: asyncio.Event, work: Coroutine[Any, Any, T], default: T) -> T:
    working = asyncio.ensure_future(work)
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        working.cancel()
        await asyncio.wait({working})
        return default
    finally:
        working.cancel()
        waiting.cancel()
