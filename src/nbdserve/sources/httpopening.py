"""Opening: the first mirror that answers says what the file is.

One request for the last bytes tells size and version, and brings what formats keep at their end.
The mirrors are asked in order of preference; one that stays silent for long is overtaken by the
next, so that a dead one costs two seconds, not its time-out. A server that knows no ranges is used
only where no other is left: then the file is downloaded whole.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import aiohttp

from nbdserve.errors import DeviceError, SourceUnavailableError
from nbdserve.formats.httprange import Entity, parse_content_range, transient_status
from nbdserve.sources.httpanswer import check_encoding, refuse_status
from nbdserve.sources.httpbudget import Budget, BudgetSpentError
from nbdserve.sources.httpcheck import read_body
from nbdserve.sources.httpmirror import Mirror
from nbdserve.sources.httpmirrors import Mirrors, OtherContentError
from nbdserve.sources.httpretry import FAILURES, Tries, cause_of

__all__ = ["TAIL", "Found", "Opening"]

TAIL: Final = 12 << 10
"""Bytes of the end of a file that opening fetches: the index of an xz file of 1,500 blocks, a GPT
backup header. They come at once with the first answer on a fresh connection, headers included (ten
segments, RFC 6928); 64 KiB would take two round trips more."""

_STAGGER = 2.0  # seconds a mirror may be silent before the next is asked too


@dataclass(slots=True)
class Found:
    """What opening has found.

    Attributes:
        mirror: where.
        entity: size and version; the size is 0 while `whole` has not told it.
        tail: the last bytes, where they came with the answer.
        whole: the answer that holds the whole file, where the server knows no ranges; to close.
    """

    mirror: Mirror
    entity: Entity
    tail: bytes = b""
    whole: aiohttp.ClientResponse | None = None


class Opening:
    """Finds a mirror that serves the file.

    Args:
        mirrors: where to look.
        budget: what the requests are counted in.
        patience: seconds to go on trying.
        deadline: seconds it may take in all.
        size: what the file must have; None if nobody knows.
    """

    def __init__(
        self, mirrors: Mirrors, budget: Budget, patience: float, deadline: float, size: int | None
    ) -> None:
        self._mirrors = mirrors
        self._budget = budget
        self._deadline = deadline
        self._size = size
        self._tries = Tries(mirrors.name, patience)
        self._rangeless: Mirror | None = None
        self.retries = 0
        """Tries that failed so far."""

    async def find(self) -> Found:
        """Ask until one answers.

        Raises:
            DeviceError: none does.
        """
        try:
            async with asyncio.timeout(self._deadline):
                found = await self._race_or_rangeless()
        except TimeoutError as exc:
            raise SourceUnavailableError(
                f"http: {self._mirrors.name}: no answer within deadline={self._deadline:g}s; "
                "the server is slow or away"
            ) from exc
        self._mirrors.prefer(found.mirror)
        for mirror in self._mirrors:
            if mirror is not found.mirror:
                mirror.entity = None  # one that answered as well was not compared with this one
        return found

    async def _race_or_rangeless(self) -> Found:
        try:
            return await self._race()
        except DeviceError:
            if self._rangeless is not None:
                with contextlib.suppress(*FAILURES):
                    return await self._probe(self._rangeless)
            raise

    async def _race(self) -> Found:
        asking: dict[asyncio.Task[Found], Mirror] = {}
        try:
            while True:
                if not asking:
                    self._ask(await self._mirrors.pick(self._tries), asking)
                await asyncio.wait(asking, timeout=_STAGGER, return_when=asyncio.FIRST_COMPLETED)
                ended = [task for task in asking if task.done()]
                for task in ended:
                    found = self._outcome(task, asking.pop(task))
                    if found is not None:
                        for overtaken in asking.values():
                            overtaken.late()
                        return found
                if not ended:
                    other = self._mirrors.pick_nowait(self._tries, without=set(asking.values()))
                    if other is not None:
                        self._ask(other, asking)
        finally:
            await _end(asking)

    def failed(self, mirror: Mirror, exc: Exception) -> None:
        """Take note of one of FAILURES.

        Raises:
            DeviceError: no mirror will do.
        """
        if isinstance(exc, BudgetSpentError):
            raise exc
        self.retries += 1
        refused = isinstance(exc, aiohttp.ClientHttpProxyError) and not transient_status(exc.status)
        # nothing was ever there: no waiting
        if refused or isinstance(exc, aiohttp.ClientConnectorError):
            told = (
                f"http: {mirror.name}: {cause_of(exc)}; check the URL, the server and the network"
            )
            exc = SourceUnavailableError(told)
        self._mirrors.failed(mirror, exc, self._tries)

    def _ask(self, mirror: Mirror, asking: dict[asyncio.Task[Found], Mirror]) -> None:
        asking[asyncio.create_task(self._probe(mirror))] = mirror

    def _outcome(self, task: asyncio.Task[Found], mirror: Mirror) -> Found | None:
        """Return what a mirror has answered if that will do."""
        try:
            found = task.result()
            if found.whole is not None and len(self._mirrors.usable) > 1:
                found.whole.close()
                self._rangeless = mirror
                self.failed(mirror, SourceUnavailableError(f"http: {mirror.name}: no ranges"))
                return None
        except FAILURES as exc:
            self.failed(mirror, exc)
            return None
        return found

    async def _probe(self, mirror: Mirror) -> Found:
        response = await self._get(mirror, f"bytes=-{TAIL}")
        async with response:
            found = await self._read_range(mirror, response)
        if found is None:  # no suffix ranges, or no ranges at all: the first byte tells
            response = await self._get(mirror, "bytes=0-0")
            found = await self._read_range_or_whole(mirror, response)
        try:
            if found.whole is None:
                self.hold_size(mirror, found.entity.size)
            elif found.whole.content_length is not None:
                self.hold_size(mirror, found.whole.content_length)
        except OtherContentError:
            if found.whole is not None:
                found.whole.close()
            raise
        return found

    def hold_size(self, mirror: Mirror, size: int) -> None:
        """Hold the size a mirror's file has against what it must have.

        Raises:
            OtherContentError: it is another.
        """
        if self._size is not None and size != self._size:
            raise OtherContentError(
                f"http: {mirror.name}: it has {size} bytes, the metalink says "
                f"{self._size}; the mirror is stale, or the metalink is"
            )

    async def _get(self, mirror: Mirror, asked: str) -> aiohttp.ClientResponse:
        self._budget.take_request()
        mirror.requests += 1
        began = time.monotonic()
        response = await mirror.origin.get({"Range": asked})
        now = time.monotonic()
        mirror.pace.first_byte(now - began, now)
        return response

    async def _read_range_or_whole(self, mirror: Mirror, response: aiohttp.ClientResponse) -> Found:
        try:
            found = await self._read_range(mirror, response)
            if found is None:
                if response.status != 200:
                    refuse_status(response, mirror.origin)
                check_encoding(response, mirror.origin)
                mirror.origin.remember(response)
                return Found(mirror, mirror.pin(response.headers, 0), whole=response)
        except BaseException:
            response.close()
            raise
        response.release()
        return found

    async def _read_range(self, mirror: Mirror, response: aiohttp.ClientResponse) -> Found | None:
        """Take size, version and bytes from an answer to a range; None if it is none."""
        told = parse_content_range(response.headers.get("Content-Range"))
        is_empty = response.status == 200 and response.content_length == 0
        if is_empty or (response.status == 416 and told is not None and told.total == 0):
            return Found(mirror, mirror.pin(response.headers, 0))
        if response.status in (200, 416):
            return None
        if response.status != 206:
            refuse_status(response, mirror.origin)
        check_encoding(response, mirror.origin)
        if told is None or told.total is None or told.start is None or told.end is None:
            return None
        body = await read_body(response, told.end - told.start + 1)
        self._budget.take_bytes(len(body), reserved=False)
        mirror.origin.remember(response)
        entity = mirror.pin(response.headers, told.total)
        return Found(mirror, entity, body if told.end == told.total - 1 else b"")


async def _end(asking: Iterable[asyncio.Task[Found]]) -> None:
    """End the probes that were overtaken."""
    for task in asking:
        task.cancel()
    for ended in await asyncio.gather(*asking, return_exceptions=True):
        if isinstance(ended, Found) and ended.whole is not None:
            ended.whole.close()
