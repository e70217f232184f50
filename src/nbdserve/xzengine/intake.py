"""Bytes on their way in: received while those before them are being worked on, within a bound.

One task takes pieces out of a stream and puts them down until `limit` bytes lie there; so the
network and the decoder are busy at the same time, and a consumer that stops taking stops the
sender, by TCP's own means.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final, Self

from nbdserve.errors import SourceUnavailableError
from nbdserve.xzengine.turns import end_of

__all__ = ["INTAKE", "Intake"]

INTAKE: Final = 1 << 20
"""Packed bytes that may wait for a decoder."""


class Intake:
    """Receive a stream ahead of who takes it; to be used as an async context manager.

    Args:
        stream: where the bytes come from; closed at the end.
        length: how many it brings.
        limit: bytes that may lie untaken before no more are received; with 0 one piece at a time.
        moved: called when bytes have come or were taken, and when no more will come.
    """

    def __init__(
        self,
        stream: AsyncGenerator[bytes | memoryview, None],
        length: int,
        *,
        limit: int,
        moved: Callable[[], None] | None = None,
    ) -> None:
        self._stream = stream
        self._missing = length
        self._limit = max(1, limit)
        self._moved = moved
        self._pieces: deque[bytes | memoryview] = deque()
        self._size = 0
        self._error: BaseException | None = None
        self._over = False
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def missing(self) -> int:
        """Bytes that are still to come; 0 when it is over, however that came about."""
        return 0 if self._over else self._missing

    @property
    def lying(self) -> int:
        """Bytes that have come and were not taken yet."""
        return self._size

    @property
    def failed(self) -> bool:
        """Whether the stream has failed."""
        return self._error is not None

    def start(self) -> None:
        """Begin to receive, before somebody enters it; it has to be closed then. No harm twice."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._receive())

    async def close(self) -> None:
        """End it, and wait until the stream is closed."""
        self._over = True  # a task that is cancelled before it ran does not say so
        self._put_away()
        if self._task is not None:
            self._task.cancel()
            await end_of(self._task)

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def take(self) -> list[bytes | memoryview]:
        """Wait for bytes and take all that lie there.

        Raises:
            DeviceError: what the stream failed with, after what came before it was taken; or it
                has ended, and more was wanted.
        """
        while not (self._pieces or self._over):
            self._arrived.clear()
            await self._arrived.wait()
        if not self._pieces:
            raise self._error or SourceUnavailableError("xz: the file ended within a block")
        taken = list(self._pieces)
        self._put_away()
        self._taken.set()
        self._tell()
        return taken

    async def _receive(self) -> None:
        try:
            async with aclosing(self._stream) as stream:
                async for piece in stream:
                    self._put_down(piece)
                    while self._size >= self._limit:
                        self._taken.clear()
                        await self._taken.wait()
        except asyncio.CancelledError:
            raise
        except Exception as exc:  # noqa: BLE001 -- it is the taker's
            self._error = exc
        finally:
            self._over = True
            self._arrived.set()
            self._tell()

    def _put_down(self, piece: bytes | memoryview) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        self._missing -= len(piece)
        self._arrived.set()
        self._tell()

    def _put_away(self) -> None:
        self._pieces.clear()
        self._size = 0

    def _tell(self) -> None:
        if self._moved is not None:
            self._moved()
