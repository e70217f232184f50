"""The `http` source: a file on a web server, read by Range requests.

Opening costs one request, for the last bytes of the file: it tells size and version, and holds what
formats keep at their end. The version is pinned; every later answer must be of it. A read that
breaks off goes on from where it broke; what is transient is tried again with growing, random waits
until `retry-for` has passed without a byte of progress. Wrong bytes are never returned: an answer
is taken only if status, Content-Range and validators all say it is what was asked for.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NoReturn

import aiohttp

from nbdserve.device import BlockSize, Device, DeviceInfo, FileRange
from nbdserve.errors import CorruptDataError, SourceUnavailableError
from nbdserve.formats.httprange import (
    Entity,
    parse_content_range,
    parse_retry_after,
    transient_status,
)
from nbdserve.sources.httporigin import Origin
from nbdserve.sources.httpparams import HttpParams
from nbdserve.sources.httpretry import FAILURES, TransientError, Tries
from nbdserve.sources.httpspool import Spool

__all__ = ["HttpSource"]

log = logging.getLogger(__name__)

# The index and footer of an xz file of 3,000 blocks, a qcow2 or GPT backup header: one request.
_TAIL = 64 << 10
_BLOCK_SIZE = BlockSize(1, 64 << 10, 32 << 20)

_REMEDY = {
    401: "give user= and password-file=, or bearer-file=",
    403: "give credentials (user=, bearer-file=), or a fresh signed URL",
    404: "check the URL",
    410: "check the URL",
}


class HttpSource(Device):
    """A file on a web server, read by Range requests; read-only.

    The file's version (ETag or date, and size) is pinned when it is opened: if it is replaced,
    reads fail until the export is opened again, and never mix old and new. Resets, short answers,
    429 and 5xx are tried again. Redirects are followed once and remembered. A server that knows
    no ranges gets one full download into a temporary file. Proxies are taken from the environment.

        nbdserve --layer xz http https://example.com/disk.raw.xz
        nbdserve http https://example.com/disk.raw bearer-file=/etc/nbdserve/token
    """

    Params = HttpParams
    shareable = True
    writable = False

    def __init__(self, params: HttpParams) -> None:
        self._params = params
        self._origin = Origin(params)
        self._slots = asyncio.Semaphore(max(1, params.connections))
        self._entity = Entity(0, None, None)
        self._tail = b""
        self._spool: Spool | None = None
        self._info = DeviceInfo(0)
        self.bytes_received = 0
        """Bytes of bodies received so far."""
        self.retries = 0
        """Tries that failed and were repeated so far."""

    @property
    def info(self) -> DeviceInfo:
        return self._info

    @property
    def requests(self) -> int:
        """Requests made so far."""
        return self._origin.requests

    @property
    def identity(self) -> str | None:
        entity = self._entity
        version = entity.etag or entity.last_modified
        return version and f"{self._origin.name} {version} {entity.size}"

    async def open(self, *, read_only: bool) -> None:
        self._origin.open()
        try:
            await self._open()
        except BaseException:
            await self.close()
            raise
        size = self._spool.size if self._spool else self._entity.size
        self._info = DeviceInfo(size, _BLOCK_SIZE)
        log.debug("http opened url=%s size=%d ranges=%s", self._origin.name, size, not self._spool)

    async def close(self) -> None:
        await self._origin.close()
        if self._spool is not None:
            self._spool.close()
        log.debug(
            "http closed url=%s requests=%d received=%d retries=%d",
            self._origin.name,
            self.requests,
            self.bytes_received,
            self.retries,
        )

    # Reading

    def read_into_nowait(self, offset: int, view: memoryview) -> bool:
        if self._spool is not None:
            return self._spool.read_nowait(offset, view)
        start = offset - (self._entity.size - len(self._tail))
        if start < 0:
            return False
        view[:] = self._tail[start : start + len(view)]
        return True

    def file_range(self, offset: int, length: int) -> FileRange | None:
        return None if self._spool is None else self._spool.file_range(offset)

    async def read_into(self, offset: int, view: memoryview) -> None:
        if self._spool is not None:
            await self._spool.read(offset, view)
        elif len(view) and not self.read_into_nowait(offset, view):  # no Range holds no bytes
            done = 0
            async with self._slots, aclosing(self._chunks(offset, len(view))) as chunks:
                async for chunk in chunks:
                    view[done : done + len(chunk)] = chunk
                    done += len(chunk)

    async def stream(self, offset: int, length: int) -> AsyncGenerator[bytes | memoryview, None]:
        if self._spool is not None or offset >= self._entity.size - len(self._tail):
            async with aclosing(super().stream(offset, length)) as pieces:
                async for piece in pieces:
                    yield piece
        elif length:
            async with self._slots, aclosing(self._chunks(offset, length)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def _chunks(self, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        """Yield a range as it comes; what breaks off is asked for again from there."""
        tries = Tries(self._origin.name, self._params.retry_for)
        done = 0
        while done < length:
            try:
                async with aclosing(self._fetch(offset + done, length - done)) as chunks:
                    async for chunk in chunks:
                        done += len(chunk)
                        yield chunk
                        tries.progressed()  # after the caller's own time, which is no delay
            except FAILURES as exc:
                await self._try_again(tries, exc)

    async def _fetch(self, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        """Ask for a range once and yield what comes."""
        last = offset + length - 1
        headers = {"Range": f"bytes={offset}-{last}"}
        if self._entity.if_range is not None:
            headers["If-Range"] = self._entity.if_range
        done = 0
        async with self._origin.get(headers) as response:
            self._check(response, offset, last)
            async for chunk in response.content.iter_any():
                done += len(chunk)
                if done > length:
                    raise CorruptDataError(
                        f"http: {self._origin.name}: more bytes than asked for at {offset}"
                    )
                self.bytes_received += len(chunk)
                yield chunk
        if done < length:
            raise TransientError(f"the answer ended at {offset + done}")

    def _check(self, response: aiohttp.ClientResponse, offset: int, last: int) -> None:
        """Take an answer only if it is what was asked for, of the version that was opened."""
        if response.status not in (200, 206, 416):
            self._refuse_status(response)
        found = parse_content_range(response.headers.get("Content-Range"))
        total = found.total if found else None
        if response.status == 200:
            total = response.content_length
        now = Entity.of(response.headers, self._entity.size if total is None else total)
        difference = self._entity.difference(now)
        if difference is not None or response.status == 416:
            raise SourceUnavailableError(
                f"http: {self._origin.name} changed while open "
                f"({difference or 'it has become shorter'}); reopen the export"
            )
        if response.status == 200:
            raise SourceUnavailableError(
                f"http: {self._origin.name}: the server stopped answering ranges; reopen the export"
            )
        self._check_encoding(response)
        if found is None or found.start != offset or found.end is None or found.end > last:
            raise CorruptDataError(
                f"http: {self._origin.name}: asked for bytes {offset}-{last}, got "
                f"{response.headers.get('Content-Range', 'no Content-Range')!r}; "
                "the server is at fault"
            )

    def _check_encoding(self, response: aiohttp.ClientResponse) -> None:
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":
            raise CorruptDataError(
                f"http: {self._origin.name}: answered with Content-Encoding {encoding}; "
                "ask for the file as it is"
            )

    # Opening

    async def _open(self) -> None:
        tries = Tries(self._origin.name, self._params.retry_for, opening=True)
        while True:
            try:
                await self._open_once()
            except FAILURES as exc:
                await self._try_again(tries, exc)
            else:
                return

    async def _open_once(self) -> None:
        async with self._origin.get({"Range": f"bytes=-{_TAIL}"}) as response:
            if await self._took_range(response):
                return
        # No suffix ranges, or no ranges at all: the first byte tells.
        async with self._origin.get({"Range": "bytes=0-0"}) as response:
            if not await self._took_range(response):
                await self._take_whole(response)

    async def _took_range(self, response: aiohttp.ClientResponse) -> bool:
        """Take size, version and bytes from an answer to a range; False if it is none."""
        found = parse_content_range(response.headers.get("Content-Range"))
        if response.status == 416 and found is not None and found.total == 0:
            self._entity = Entity.of(response.headers, 0)
            return True
        if response.status in (200, 416):
            return response.status == 200 and await self._took_empty(response)
        if response.status != 206:
            self._refuse_status(response)
        self._check_encoding(response)
        if found is None or found.total is None or found.start is None or found.end is None:
            return False
        body = await response.content.read()
        if len(body) != found.end - found.start + 1:
            raise TransientError("the answer broke off")
        self.bytes_received += len(body)
        self._entity = Entity.of(response.headers, found.total)
        if found.end == found.total - 1:
            self._tail = body
        self._origin.remember(response)
        return True

    async def _took_empty(self, response: aiohttp.ClientResponse) -> bool:
        if response.content_length != 0:
            return False
        self._entity = Entity.of(response.headers, 0)
        return True

    async def _take_whole(self, response: aiohttp.ClientResponse) -> None:
        if response.status != 200:
            self._refuse_status(response)
        self._check_encoding(response)
        self._spool = self._spool or Spool(self._params.download_dir, self._origin.name)
        try:
            await self._spool.fill(response)
        except SourceUnavailableError as exc:
            raise TransientError(str(exc)) from exc
        self.bytes_received += self._spool.size
        self._entity = Entity.of(response.headers, self._spool.size)

    # Trying again

    async def _try_again(self, tries: Tries, exc: Exception) -> None:
        """Wait before the next try, or raise if there shall be none."""
        await tries.failed(exc)
        self.retries += 1
        self._origin.forget()

    def _refuse_status(self, response: aiohttp.ClientResponse) -> NoReturn:
        status = response.status
        if transient_status(status):
            asked = parse_retry_after(response.headers.get("Retry-After"))
            raise TransientError(f"status {status} {response.reason}", asked)
        if self._origin.is_redirected and status in (401, 403, 404, 410):
            # an address that was signed for a while; the operator's own may give a new one
            raise TransientError(f"the redirect's target answered {status} {response.reason}")
        remedy = _REMEDY.get(status, "check the URL and the server")
        raise SourceUnavailableError(
            f"http: {self._origin.name}: {status} {response.reason}; {remedy}"
        )
