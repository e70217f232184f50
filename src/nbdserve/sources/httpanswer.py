"""What an answer to a Range request says, and whether it may be believed.

An answer is taken only if status, Content-Range and validators all say that it is what was asked
for, of the version that was opened: no bytes of another place or another version get through.
"""

from typing import NoReturn

import aiohttp

from nbdserve.errors import CorruptDataError, SourceUnavailableError
from nbdserve.formats.httprange import (
    Entity,
    parse_content_range,
    parse_retry_after,
    transient_status,
)
from nbdserve.sources.httporigin import Origin
from nbdserve.sources.httpretry import TransientError

__all__ = ["check_encoding", "check_range", "refuse_status"]

_REMEDY = {
    401: "give user= and password-file=, or bearer-file=",
    403: "give credentials (user=, bearer-file=), or a fresh signed URL",
    404: "check the URL",
    407: "put the proxy's user and password into http_proxy=",
    410: "check the URL",
}
_PUSHED_BACK = frozenset({429, 503})


def check_range(
    response: aiohttp.ClientResponse, origin: Origin, entity: Entity, offset: int, last: int
) -> int:
    """Take an answer to `bytes=offset-last` only if it is that, of the pinned version.

    Returns:
        The byte after the last that it brings; it may be less than was asked for.

    Raises:
        TransientError: another try may succeed.
        DeviceError: none will.
    """
    name = origin.name
    if response.status not in (200, 206, 416):
        refuse_status(response, origin)
    found = parse_content_range(response.headers.get("Content-Range"))
    total = found.total if found else None
    if response.status == 200:
        total = response.content_length
    now = Entity.of(response.headers, entity.size if total is None else total)
    difference = entity.difference(now)
    if difference is not None or response.status == 416:
        raise SourceUnavailableError(
            f"http: {name} changed while open "
            f"({difference or 'it has become shorter'}); reopen the export"
        )
    if response.status == 200:
        raise SourceUnavailableError(
            f"http: {name}: the server stopped answering ranges; reopen the export"
        )
    check_encoding(response, origin)
    if found is None or found.start != offset or found.end is None or found.end > last:
        raise CorruptDataError(
            f"http: {name}: asked for bytes {offset}-{last}, got "
            f"{response.headers.get('Content-Range', 'no Content-Range')!r}; "
            "the server is at fault"
        )
    return found.end + 1


def check_encoding(response: aiohttp.ClientResponse, origin: Origin) -> None:
    """Refuse an answer that is not the file as it is.

    Raises:
        CorruptDataError: it is compressed on the way.
    """
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise CorruptDataError(
            f"http: {origin.name}: answered with Content-Encoding {encoding}; "
            "ask for the file as it is"
        )


def refuse_status(response: aiohttp.ClientResponse, origin: Origin) -> NoReturn:
    """Raise for a status that is no answer to a range.

    Raises:
        TransientError: another try may succeed.
        SourceUnavailableError: none will.
    """
    status = response.status
    told = f"{status} {response.reason}"
    if transient_status(status):
        asked = parse_retry_after(response.headers.get("Retry-After"))
        raise TransientError(f"status {told}", asked, pushed_back=status in _PUSHED_BACK)
    if origin.is_redirected and status in (401, 403, 404, 410):
        # an address that was signed for a while; the operator's own may give a new one
        raise TransientError(f"the redirect's target answered {told}")
    remedy = _REMEDY.get(status, "check the URL and the server")
    raise SourceUnavailableError(f"http: {origin.name}: {told}; {remedy}")
