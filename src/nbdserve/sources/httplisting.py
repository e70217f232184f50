"""What the operator says of a file before it is asked for: its addresses, size and hash."""

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

from nbdserve.errors import ConfigError, DeviceError, SourceUnavailableError
from nbdserve.formats.metalink import MAX_SIZE, MetalinkError, MetalinkFile, parse_metalink
from nbdserve.sources.httpanswer import refuse_status
from nbdserve.sources.httporigin import Origin
from nbdserve.sources.httpparams import HttpParams
from nbdserve.sources.httpretry import FAILURES, Tries
from nbdserve.sources.httpurl import parse_url, redacted
from nbdserve.threads import run_io

__all__ = ["Listing", "read_listing"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listing:
    """Where a file is, and what it must be.

    Attributes:
        urls: the operator's, in the order given.
        found: those of a metalink that are not among them, best first.
        size: None if nobody told.
        sha256: likewise.
    """

    urls: tuple[str, ...]
    found: tuple[str, ...] = ()
    size: int | None = None
    sha256: str | None = None


async def read_listing(params: HttpParams) -> Listing:
    """Put together what the parameters and the metalink they name say.

    Raises:
        ConfigError: they contradict each other, or the metalink is none.
        DeviceError: the metalink cannot be had.
    """
    listing = await _combine(params)
    if params.verify == "background" and listing.sha256 is None:
        raise ConfigError("needs sha256=", table="source http", key="verify")
    return listing


async def _combine(params: HttpParams) -> Listing:
    if params.metalink is None:
        return Listing(params.url, sha256=params.sha256)
    file = await _read_metalink(params.metalink, params)
    if params.sha256 and file.sha256 and params.sha256 != file.sha256:
        raise ConfigError(
            f"the metalink says {file.sha256} for {file.name!r}", table="source http", key="sha256"
        )
    found = tuple(url for url in file.urls if url not in params.url and _is_sound(url))
    if not params.url and not found:
        raise _refused(params.metalink, "it names no http:// or https:// URL")
    return Listing(params.url, found, file.size, params.sha256 or file.sha256)


def _is_sound(url: str) -> bool:
    """Tell whether one of a metalink's addresses can be used; the others stand in for it."""
    try:
        parse_url(url)
    except ConfigError as exc:
        log.warning("http metalink names what is no URL, it is left out: %s", exc)
        return False
    return True


async def _read_metalink(place: str, params: HttpParams) -> MetalinkFile:
    if place.startswith(("http://", "https://")):
        try:
            async with asyncio.timeout(params.deadline):
                data = await _download(place, params)
        except TimeoutError as exc:
            raise SourceUnavailableError(
                f"http: {redacted(place)}: not all came within deadline={params.deadline:g}s; "
                "the server is slow or away"
            ) from exc
    else:
        data = await run_io(_read, place)
    try:
        return parse_metalink(data).file(params.metalink_name)
    except MetalinkError as exc:
        key = " (metalink-name= chooses one)" if "several" in str(exc) else ""
        raise _refused(place, f"{exc}{key}") from exc


def _refused(place: str, reason: str) -> ConfigError:
    return ConfigError(f"{redacted(place)}: {reason}", table="source http", key="metalink")


def _read(place: str) -> bytes:
    path = Path(place).expanduser()
    try:
        with path.open("rb") as file:
            return file.read(MAX_SIZE + 1)
    except OSError as exc:
        raise DeviceError(f"http: {path}: {exc.strerror}; check the path", exc.errno) from exc


async def _download(url: str, params: HttpParams) -> bytes:
    owner = object()
    origin = Origin(url, params, owner, is_trusted=True)
    tries = Tries(origin.name, params.retry_for)
    origin.open()
    try:
        while True:
            try:
                return await _fetch(origin)
            except FAILURES as exc:
                if isinstance(exc, DeviceError):
                    raise
                tries.failed(origin, exc)
                await asyncio.sleep(tries.wait_until(tries.not_before(origin)))
    finally:
        await origin.close()


async def _fetch(origin: Origin) -> bytes:
    async with await origin.get({}) as response:
        if response.status != 200:
            refuse_status(response, origin)
        data = bytearray()
        while len(data) <= MAX_SIZE and (chunk := await response.content.readany()):
            data += chunk
    if len(data) > MAX_SIZE:
        raise SourceUnavailableError(f"http: {origin.name}: longer than any metalink")
    return bytes(data)
