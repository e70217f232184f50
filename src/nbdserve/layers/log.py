"""log: write down each request, what became of it and how long it took.

The one place where INFO means a line a request: that is what the operator asked for by naming it.
With `file`, a thread of its own writes, so that a slow disk never stalls the event loop.
"""

import asyncio
import errno
import logging
import queue
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from logging.handlers import QueueHandler, QueueListener
from pathlib import Path
from time import perf_counter
from typing import TypeVar

from nbdserve.device import Device, FileRange, Passthrough
from nbdserve.errors import DeviceError
from nbdserve.extents import Extent
from nbdserve.params import PATH, param
from nbdserve.threads import run_io

__all__ = ["LogLayer", "LogParams"]

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogParams:
    """Where the lines go."""

    file: Path | None = param(
        PATH, default=None, help="append the lines to this file (default: the daemon's log)"
    )


class LogLayer(Passthrough):
    """Log every request: operation, offset, length, flags, result and duration.

    Use it to see what a client does, or what a layer makes of it: put it above and beneath that
    layer. Requests answered at once from memory are logged too. Without `file` the lines go to
    the daemon's log at level INFO.

        nbdserve --layer log:file=requests.log file disk.img
    """

    Params = LogParams

    def __init__(self, inner: Device, params: LogParams) -> None:
        super().__init__(inner)
        self._file = params.file
        self._log = log
        self._listener: QueueListener | None = None

    async def open(self, *, read_only: bool) -> None:
        """Open the log file, if one is named.

        Raises:
            DeviceError: it cannot be opened for appending.
        """
        if self._file is not None:
            self._log, self._listener = await run_io(_log_to, self._file)
        self._log.info("opened size=%d read_only=%s", self.info.size, read_only)

    async def close(self) -> None:
        self._log.info("closed")
        if self._listener is not None:
            await run_io(_end, self._listener)

    async def _note(self, call: Awaitable[T], operation: str, facts: str) -> T:
        """Await a call and log its outcome."""
        begun = perf_counter()
        try:
            result = await call
        except asyncio.CancelledError:
            self._line(operation, facts, "cancelled", begun)
            raise
        except Exception as exc:
            self._line(operation, facts, _outcome(exc), begun)
            raise
        self._line(operation, facts, "ok", begun)
        return result

    def _line(self, operation: str, facts: str, result: str, begun: float) -> None:
        duration = perf_counter() - begun
        self._log.info("%s%s duration=%.6f result=%s", operation, facts, duration, result)

    async def read_into(self, offset: int, view: memoryview) -> None:
        facts = f" offset={offset} length={len(view)}"
        await self._note(self.inner.read_into(offset, view), "read", facts)

    def read_into_nowait(self, offset: int, view: memoryview) -> bool:
        begun = perf_counter()
        if not self.inner.read_into_nowait(offset, view):
            return False
        self._line("read", f" offset={offset} length={len(view)} nowait", "ok", begun)
        return True

    async def stream(self, offset: int, length: int) -> AsyncGenerator[bytes | memoryview, None]:
        begun, done, result = perf_counter(), 0, "ok"
        try:
            async with aclosing(self.inner.stream(offset, length)) as pieces:
                async for piece in pieces:
                    done += len(piece)
                    yield piece
        except (asyncio.CancelledError, GeneratorExit):
            result = f"stopped at={done}"
            raise
        except Exception as exc:
            result = _outcome(exc)
            raise
        finally:
            self._line("read", f" offset={offset} length={length} stream", result, begun)

    def file_range(self, offset: int, length: int) -> FileRange | None:
        begun = perf_counter()
        found = self.inner.file_range(offset, length)
        if found is not None:
            self._line("file_range", f" offset={offset} length={length}", "ok", begun)
        return found

    async def write(self, offset: int, data: memoryview, *, fua: bool) -> None:
        facts = f" offset={offset} length={len(data)}{_flags(fua=fua)}"
        await self._note(self.inner.write(offset, data, fua=fua), "write", facts)

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool, may_trim: bool, fast: bool
    ) -> None:
        call = self.inner.write_zeroes(offset, length, fua=fua, may_trim=may_trim, fast=fast)
        facts = f" offset={offset} length={length}"
        await self._note(call, "zero", facts + _flags(fua=fua, may_trim=may_trim, fast=fast))

    async def trim(self, offset: int, length: int, *, fua: bool) -> None:
        facts = f" offset={offset} length={length}{_flags(fua=fua)}"
        await self._note(self.inner.trim(offset, length, fua=fua), "trim", facts)

    async def flush(self) -> None:
        await self._note(self.inner.flush(), "flush", "")

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        facts = f" offset={offset} length={length}"
        return await self._note(self.inner.extents(offset, length), "extents", facts)

    async def cache(self, offset: int, length: int) -> None:
        facts = f" offset={offset} length={length}"
        await self._note(self.inner.cache(offset, length), "cache", facts)


def _flags(**flags: bool) -> str:
    return "".join(f" {name}" for name, is_set in flags.items() if is_set)


def _outcome(exc: Exception) -> str:
    name = errno.errorcode.get(exc.errno or 0, "") if isinstance(exc, OSError) else ""
    return f"{name or type(exc).__name__}: {exc}"


def _log_to(path: Path) -> tuple[logging.Logger, QueueListener]:
    """Make a logger of its own whose lines a thread appends to a file."""
    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as exc:
        raise DeviceError(
            f"log: {path} cannot be opened for appending: {exc.strerror}; name another file=",
            exc.errno,
        ) from exc
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    lines: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    # not from getLogger: loggers found by name live for ever, and two layers would share one
    own = logging.Logger(__name__, logging.INFO)  # noqa: LOG001 -- as said above
    own.addHandler(QueueHandler(lines))
    listener = QueueListener(lines, handler)
    listener.start()
    return own, listener


def _end(listener: QueueListener) -> None:
    """Write what is queued, then close the file."""
    listener.stop()
    for handler in listener.handlers:
        handler.close()
