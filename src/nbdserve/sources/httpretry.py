"""When a request that failed is made again, and when it is given up.

One object holds the tries for one read: what is transient is tried again with growing, random
waits until so much time has passed without a byte of progress. What is not transient goes on as
the error it is.
"""

import asyncio
import logging
import os
import random
import time
from typing import NoReturn

import aiohttp

from nbdserve.errors import DeviceError, SourceUnavailableError
from nbdserve.formats.httprange import backoff_ceiling

__all__ = ["FAILURES", "TransientError", "Tries"]

log = logging.getLogger(__name__)


class TransientError(Exception):
    """This try failed; another one may not."""

    def __init__(self, cause: str, retry_after: float | None = None) -> None:
        super().__init__(cause)
        self.retry_after = retry_after


FAILURES = (TransientError, aiohttp.ClientError, OSError)
"""What a try may end with, time-outs and device errors included (they are OSErrors)."""


class Tries:
    """The tries of one read.

    Args:
        name: how messages call the source.
        patience: seconds without progress after which it is given up.
        opening: the source is being opened: a server that is not there is an error at once.
    """

    def __init__(self, name: str, patience: float, *, opening: bool = False) -> None:
        self._name = name
        self._patience = patience
        self._opening = opening
        self._failed = 0
        self._deadline = time.monotonic() + patience

    def progressed(self) -> None:
        """Count anew: a byte came."""
        self._failed = 0
        self._deadline = time.monotonic() + self._patience

    async def failed(self, exc: Exception) -> None:
        """Wait before the next try, after one that ended with one of FAILURES.

        Raises:
            DeviceError: there shall be none.
        """
        cause, asked = self._judge(exc)
        self._failed += 1
        wait = random.uniform(0, backoff_ceiling(self._failed))  # noqa: S311 -- no secret
        wait = max(wait, asked or 0.0)
        if time.monotonic() + wait > self._deadline:
            self._give_up(cause, exc)
        log.debug("http trying again url=%s in=%.2fs: %s", self._name, wait, cause)
        await asyncio.sleep(wait)

    def _judge(self, exc: Exception) -> tuple[str, float | None]:
        """Tell the cause and the wait the server asked for, or raise what is no use trying."""
        if isinstance(exc, TransientError):
            return str(exc), exc.retry_after
        if isinstance(exc, DeviceError):
            raise exc
        if isinstance(exc, aiohttp.InvalidURL):
            raise DeviceError(f"http: {self._name}: redirected to {exc}") from exc
        if isinstance(exc, aiohttp.ClientConnectorError):
            cause = f"cannot connect to {exc.host} port {exc.port}: {_reason(exc.os_error)}"
            if self._opening:
                self._give_up(cause, exc)  # nothing was ever there: say so at once
            return cause, None
        return str(exc) or type(exc).__name__, None

    def _give_up(self, cause: str, exc: Exception) -> NoReturn:
        raise SourceUnavailableError(
            f"http: {self._name}: {cause}; check the URL, the server and the network"
        ) from exc


def _reason(error: OSError) -> str:
    """Say why a connection was refused; asyncio's own text is the address once more."""
    text = error.strerror or str(error)
    if error.errno and text.startswith("Connect call failed"):
        return os.strerror(error.errno)
    return text
