"""Bytes on their way in: received while those before them are being worked on, within a bound.

One task takes pieces out of a stream and puts them down until `limit` bytes lie there; so the
network and the decoder are busy at the same time, and a consumer that stops taking stops the
sender, by TCP's own means.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
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
        limit: bytes that may lie untaken before no more are received.
    """

    def __init__(self, stream: AsyncGenerator[bytes | memoryview, None], limit: int) -> None:
        self._stream = stream
        self._limit = limit
        self._pieces: deque[bytes | memoryview] = deque()
        self._size = 0
        self._error: BaseException | None = None
        self._over = False
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.get_running_loop().create_task(self._receive())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await end_of(self._task)

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
        self._pieces.clear()
        self._size = 0
        self._taken.set()
        return taken

    async def _receive(self) -> None:
        try:
            async with aclosing(self._stream) as stream:
                async for piece in stream:
                    self._pieces.append(piece)
                    self._size += len(piece)
                    self._arrived.set()
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
