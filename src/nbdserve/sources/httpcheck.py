"""Whether another mirror holds what was opened, looked at before its first byte is used.

Validators cannot be compared between servers: each makes its own ETags, and dates are the copy's.
So the size is compared, and the last 12 KiB byte by byte, where formats keep what differs from
one release to the next (the index of xz, the backup table of GPT). What else may differ, only the
hash of the whole file tells.
"""

import asyncio
import functools
from collections.abc import Callable

import aiohttp

from nbdserve.errors import CorruptDataError, SourceUnavailableError
from nbdserve.formats.httprange import parse_content_range
from nbdserve.sources.httpanswer import check_encoding, refuse_status
from nbdserve.sources.httpbudget import Budget
from nbdserve.sources.httpmirror import Mirror, Pinned
from nbdserve.sources.httpmirrors import OtherContentError
from nbdserve.sources.httpretry import TransientError

__all__ = ["MirrorCheck", "read_body"]


class MirrorCheck:
    """Holds mirrors against the content that was opened, each once.

    Args:
        pinned: gives that content.
        budget: what the requests are counted in.
    """

    def __init__(self, pinned: Callable[[], Pinned], budget: Budget) -> None:
        self._pinned = pinned
        self._budget = budget
        self._looks: dict[Mirror, asyncio.Task[None]] = {}
        self._others: dict[Mirror, str] = {}  # found to hold other content, and what was found

    async def passed(self, mirror: Mirror) -> None:
        """Return when the mirror may be used; at once if it was looked at before.

        Raises:
            one of FAILURES: it may not, or not now.
        """
        if mirror.entity is not None:
            return
        if mirror in self._others:  # found a moment ago; whoever waited for it excludes the mirror
            raise OtherContentError(self._others[mirror])
        look = self._looks.get(mirror)
        if look is None:
            look = self._looks[mirror] = asyncio.create_task(self._look(mirror))
            look.add_done_callback(functools.partial(self._ended, mirror))
        await asyncio.shield(look)  # one answer for all who wait, whoever of them goes away

    def close(self) -> None:
        """End what is under way."""
        for look in self._looks.values():
            look.cancel()

    def _ended(self, mirror: Mirror, look: asyncio.Task[None]) -> None:
        del self._looks[mirror]
        error = None if look.cancelled() else look.exception()
        if isinstance(error, OtherContentError):
            self._others[mirror] = str(error)

    async def _look(self, mirror: Mirror) -> None:
        pinned = self._pinned()
        if not pinned.tail:
            raise TransientError("there is nothing to compare it with yet")
        first = pinned.size - len(pinned.tail)
        self._budget.take_request()
        mirror.requests += 1
        response = await mirror.origin.get({"Range": f"bytes={first}-{pinned.size - 1}"})
        async with response:
            _compare_size(mirror, response, first, pinned)
            body = await read_body(response, len(pinned.tail))
            self._budget.take_bytes(len(body), reserved=False)
        if body != pinned.tail:
            raise OtherContentError(
                f"http: {mirror.name}: other content: its last {len(body)} bytes differ; "
                "the mirror is stale, or holds another file"
            )
        mirror.origin.remember(response)
        mirror.pin(response.headers, pinned.size)


def _compare_size(
    mirror: Mirror, response: aiohttp.ClientResponse, first: int, pinned: Pinned
) -> None:
    found = parse_content_range(response.headers.get("Content-Range"))
    if response.status not in (200, 206, 416):
        refuse_status(response, mirror.origin)
    if response.status == 200:
        raise SourceUnavailableError(f"http: {mirror.name}: it answers no ranges")
    check_encoding(response, mirror.origin)
    size = found and found.total
    if size is not None and size != pinned.size:
        raise OtherContentError(
            f"http: {mirror.name}: other content: it has {size} bytes, not {pinned.size}; "
            "the mirror is stale, or holds another file"
        )
    if found is None or (found.start, found.end) != (first, pinned.size - 1):
        raise CorruptDataError(f"http: {mirror.name}: answered another range; it is at fault")


async def read_body(response: aiohttp.ClientResponse, length: int) -> bytes:
    """Read a body that was announced to be so long.

    Raises:
        TransientError: it is not.
    """
    body = bytearray()
    while len(body) <= length and (chunk := await response.content.readany()):
        body += chunk
    if len(body) != length:
        raise TransientError("the answer broke off")
    return bytes(body)
