"""The `http` source: a file on a web server or several, read by Range requests.

Opening costs one request, for the last bytes of the file: it tells size and version, and holds what
formats keep at their end. The version is pinned; every later answer must be of it. A read that
breaks off goes on from where it broke; what is transient is tried again with growing, random waits
until `retry-for` has passed without a byte of progress. Wrong bytes are never returned: an answer
is taken only if status, Content-Range and validators all say it is what was asked for.
"""

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from nbdserve.device import BlockSize, Device, DeviceInfo, FileRange
from nbdserve.errors import ConfigError, CorruptDataError
from nbdserve.formats.httprange import Entity
from nbdserve.sources.httpbudget import Budget
from nbdserve.sources.httpcheck import MirrorCheck
from nbdserve.sources.httplisting import Listing, read_listing
from nbdserve.sources.httpmirror import Mirror, Pinned
from nbdserve.sources.httpmirrors import Mirrors
from nbdserve.sources.httpopening import TAIL, Found, Opening
from nbdserve.sources.httporigin import Origin
from nbdserve.sources.httpparams import HttpParams
from nbdserve.sources.httpreader import Reader
from nbdserve.sources.httpretry import FAILURES
from nbdserve.sources.httpspool import Spool
from nbdserve.sources.httpurl import parse_url
from nbdserve.sources.httpverify import Verification

__all__ = ["HttpSource"]

log = logging.getLogger(__name__)

_BLOCK_SIZE = BlockSize(1, 64 << 10, 32 << 20)


class HttpSource(Device):
    """A file on a web server, or on several, read by Range requests; read-only.

    The file's version (ETag or date, and size) is pinned when it is opened: if it is replaced,
    reads fail until the export is opened again, and never mix old and new. Resets, short answers,
    429 and 5xx are tried again. Redirects are followed once and remembered. A server that knows
    no ranges gets one full download into a temporary file. Proxies are taken from the environment.

    With several `url=`, or a metalink, the best mirror is read from and the others stand in for
    it. A mirror must agree in size and in the last 12 KiB before it is used; one that does not, or
    that answers 404, is excluded with a warning. Credentials go to each `url=` and to the
    metalink's own address, not to the mirrors a metalink names.

        nbdserve --layer xz http https://example.com/disk.raw.xz
        nbdserve http https://example.com/disk.raw bearer-file=/etc/nbdserve/token
        nbdserve --layer xz http https://one.example/disk.xz url=https://two.example/disk.xz
        nbdserve --layer xz http metalink=disk.raw.xz.meta4 max-rate=10M
    """

    Params = HttpParams
    shareable = True
    writable = False

    def __init__(self, params: HttpParams) -> None:
        if not params.url and params.metalink is None:
            raise ConfigError("needs a URL, or metalink=FILE", table="source http", key="url")
        for url in params.url:
            parse_url(url)
        self._params = params
        self._info = DeviceInfo(0)
        self._entity = Entity(0, None, None)
        self._tail = b""
        self._sha256: str | None = None
        self._pinned_at = ""
        self._mirrors: Mirrors | None = None
        self._budget = Budget("")
        self._check: MirrorCheck | None = None
        self._reader: Reader | None = None
        self._spool: Spool | None = None
        self._verification: Verification | None = None
        self._condemned: str | None = None
        self._opening_retries = 0

    @property
    def info(self) -> DeviceInfo:
        return self._info

    @property
    def identity(self) -> str | None:
        if self._condemned is not None:
            return None
        if self._spool is not None and self._sha256 is not None:
            return f"sha256:{self._sha256}"  # it was verified before anything was served
        # the hash that was given is no more than a claim: what was read of another file meanwhile
        # would be served for it. It stands for a version only where the server tells none.
        version = self._entity.etag or self._entity.last_modified
        if version is None and self._sha256 is not None:
            version = f"sha256:{self._sha256}"
        return version and f"{self._pinned_at} {version} {self._entity.size}"

    @property
    def requests(self) -> int:
        """Requests made so far."""
        return self._budget.requests

    @property
    def retries(self) -> int:
        """Tries that failed so far."""
        return self._opening_retries + (self._reader.tally.retries if self._reader else 0)

    def status(self) -> Mapping[str, int | float | str | bool]:
        told: dict[str, int | float | str | bool] = {
            "requests": self.requests,
            "bytes_received": self._budget.received,
            "retries": self.retries,
        }
        if self._reader is None or self._mirrors is None:
            return told
        gate = self._mirrors.chosen.origin.gate
        told["hedges"] = self._reader.tally.hedges
        told["evicted_streams"] = self._reader.tally.evicted
        told["parallel_limit"] = gate.window.limit
        told["parallel_now"] = gate.in_flight
        if self._verification is not None:
            told["verification"] = self._verification.state
            told["verified_bytes"] = self._verification.done
        for number, mirror in enumerate(self._mirrors, 1):
            told |= mirror.status(number)
        return told

    # Opening and closing

    async def open(self, *, read_only: bool) -> None:
        try:
            listing = await read_listing(self._params)
            self._sha256 = listing.sha256
            self._mirrors = self._make_mirrors(listing)
            self._budget = self._make_budget(self._mirrors.name)
            await self._open_at(self._mirrors, listing)
        except BaseException:
            await self.close()
            raise
        size = self._entity.size
        streams = None if self._spool is not None else self._params.connections
        self._info = DeviceInfo(size, _BLOCK_SIZE, streams=streams)
        name = self._pinned_at
        log.debug("http opened url=%s size=%d ranges=%s", name, size, not self._spool)

    async def close(self) -> None:
        if self._verification is not None:
            await self._verification.close()
        if self._check is not None:
            self._check.close()
        if self._spool is not None:
            self._spool.close()
        for mirror in self._mirrors or ():
            await mirror.origin.close()
        log.debug(
            "http closed url=%s requests=%d received=%d retries=%d",
            self._pinned_at,
            self.requests,
            self._budget.received,
            self.retries,
        )

    def _make_mirrors(self, listing: Listing) -> Mirrors:
        trusted = [(url, True) for url in listing.urls]
        found = [(url, False) for url in listing.found]
        origins = [
            Origin(url, self._params, self, is_trusted=is_trusted)
            for url, is_trusted in [*trusted, *found]
        ]
        return Mirrors([Mirror(origin, order) for order, origin in enumerate(origins)])

    def _make_budget(self, name: str) -> Budget:
        given = self._params
        return Budget(name, given.max_requests, given.max_bytes, given.max_rate)

    async def _open_at(self, mirrors: Mirrors, listing: Listing) -> None:
        for mirror in mirrors:
            mirror.origin.open()
        given = self._params
        opening = Opening(mirrors, self._budget, given.retry_for, given.deadline, listing.size)
        while True:
            found = await opening.find()
            self._opening_retries = opening.retries
            if found.whole is None:
                break
            try:
                size = await self._take_whole(found)
                opening.hold_size(found.mirror, size)
            except FAILURES as exc:
                opening.failed(found.mirror, exc)
            else:
                return
        self._pin(found)
        self._check = MirrorCheck(lambda: Pinned(self._entity.size, self._tail), self._budget)
        self._reader = Reader(self._params, self, mirrors, self._check, self._budget)
        if not found.tail and self._entity.size and len(list(mirrors)) > 1:
            first = max(0, self._entity.size - TAIL)
            tail = bytearray(self._entity.size - first)
            await self._reader.fill(first, memoryview(tail))
            self._tail = bytes(tail)
        if self._params.verify == "background" and self._sha256 is not None:
            self._verification = Verification(
                self._reader, self._entity.size, self._sha256, self._condemn
            )
            self._verification.start()

    def _pin(self, found: Found) -> None:
        self._entity = found.entity
        self._tail = found.tail
        self._pinned_at = found.mirror.name

    async def _take_whole(self, found: Found) -> int:
        """Download the file, from a server that knows no ranges; return its size."""
        assert found.whole is not None
        async with found.whole:
            self._spool = self._spool or Spool(self._params.download_dir, found.mirror.name)
            await self._spool.fill(found.whole, self._budget)
        if self._sha256 is not None:
            await self._spool.verify(self._sha256)
        self._pin(found)
        self._entity = Entity.of(found.whole.headers, self._spool.size)
        return self._spool.size

    # Reading

    def read_into_nowait(self, offset: int, view: memoryview) -> bool:
        if self._condemned is not None:
            return False
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
        self._refuse_condemned()
        if self._spool is not None:
            await self._spool.read(offset, view)
        elif len(view) and not self.read_into_nowait(offset, view):  # no Range holds no bytes
            assert self._reader is not None
            await self._reader.fill(offset, view)
            self._refuse_condemned()

    async def stream(self, offset: int, length: int) -> AsyncGenerator[bytes | memoryview, None]:
        if self._reader is None or offset >= self._entity.size - len(self._tail):
            async with aclosing(super().stream(offset, length)) as pieces:
                async for piece in pieces:
                    yield piece
        elif length:
            async with aclosing(self._reader.stream(offset, length)) as chunks:
                async for chunk in chunks:
                    self._refuse_condemned()
                    yield chunk

    def _condemn(self, reason: str) -> None:
        self._condemned = reason
        log.error("http content is wrong, all reads fail url=%s: %s", self._pinned_at, reason)

    def _refuse_condemned(self) -> None:
        if self._condemned is not None:
            raise CorruptDataError(
                f"http: {self._pinned_at}: {self._condemned}; "
                "get the right file, or correct sha256="
            )
