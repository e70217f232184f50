"""The whole file held against its hash, in the background.

The pass fetches every byte once more, so it is made only if asked for; it comes after all reads,
in small requests, and leaves half of the places at the gate free. What it finds is final: after a
mismatch no byte is served any more, since nobody can tell which of them are wrong.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from contextlib import aclosing

from nbdserve.errors import DeviceError
from nbdserve.sources.httpbudget import BudgetSpentError
from nbdserve.sources.httpreader import Reader
from nbdserve.threads import run_cpu

__all__ = ["Verification"]

log = logging.getLogger(__name__)

_REQUEST = 4 << 20  # a read that comes meanwhile waits no longer than this takes
_PAUSE = 30.0  # seconds after a failure, when reads fail as well


class Verification:
    """One pass over the file.

    Args:
        reader: reads it.
        size: of the file in bytes.
        sha256: what it must hash to.
        condemn: called with the reason if it does not.
    """

    def __init__(
        self, reader: Reader, size: int, sha256: str, condemn: Callable[[str], None]
    ) -> None:
        self._reader = reader
        self._size = size
        self._sha256 = sha256
        self._condemn = condemn
        self._task: asyncio.Task[None] | None = None
        self.done = 0
        """Bytes looked at so far."""
        self.state = "running"
        """One of `running`, `ok`, `mismatch`, `stopped`."""

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """End it wherever it is."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        name = self._reader.mirrors.name
        found = hashlib.sha256()
        while self.done < self._size:
            length = min(_REQUEST, self._size - self.done)
            try:
                async with aclosing(self._reader.stream(self.done, length, low=True)) as chunks:
                    async for chunk in chunks:
                        await run_cpu(found.update, chunk)
                        self.done += len(chunk)
            except BudgetSpentError as exc:
                self.state = "stopped"
                log.warning("http verification stopped url=%s: %s", name, exc)
                return
            except DeviceError as exc:
                log.info("http verification waits url=%s done=%d: %s", name, self.done, exc)
                await asyncio.sleep(_PAUSE)
        if found.hexdigest() == self._sha256:
            self.state = "ok"
            log.info("http verified url=%s size=%d sha256=%s", name, self._size, self._sha256)
            return
        self.state = "mismatch"
        self._condemn(f"the file's sha256 is {found.hexdigest()}, not {self._sha256}")
