"""What a request carries beside its range: the operator's headers, and those with credentials.

Credentials go to the origin they were given for and nowhere else: not to the target of a redirect
elsewhere, not to the mirrors that a metalink names. Source: RFC 9110, sections 11.6 and 11.7.
"""

import base64
from pathlib import Path
from typing import NamedTuple

from nbdserve import __version__
from nbdserve.errors import ConfigError, DeviceError
from nbdserve.sources.httpparams import HttpParams

__all__ = ["RequestHeaders", "request_headers"]

_CREDENTIALS = frozenset({"authorization", "cookie", "proxy-authorization"})


class RequestHeaders(NamedTuple):
    """The headers of every request.

    Attributes:
        all: for whoever is asked.
        secret: for the origin of the operator's address alone.
    """

    all: dict[str, str]
    secret: dict[str, str]


def request_headers(
    params: HttpParams, user: str | None, password: str | None, *, is_trusted: bool
) -> RequestHeaders:
    """Put together what the parameters, the files they name and an address say.

    Args:
        params: the source's.
        user: the one in the address.
        password: likewise.
        is_trusted: whether the address is the operator's own; a metalink's is not.

    Raises:
        DeviceError: a file with a credential cannot be read, or holds none.
        ConfigError: a header is none.
    """
    given = [_parse_header(line, "header") for line in params.header]
    shared = {
        "User-Agent": f"nbdserve/{__version__}",
        "Accept-Encoding": "identity",  # a range of a compressed answer means nothing
        **{name: value for name, value in given if name.lower() not in _CREDENTIALS},
    }
    if not is_trusted:
        return RequestHeaders(shared, _basic(user, password))
    secret = {name: value for name, value in given if name.lower() in _CREDENTIALS}
    if params.header_file is not None:
        lines = _read(params.header_file).splitlines()
        secret |= dict(_parse_header(line, "header-file") for line in lines if line.strip())
    if params.user is not None:
        user = params.user
    if params.password_file is not None:
        password = _first_line(params.password_file)
    found = _basic(user, password)
    if params.bearer_file is not None:
        found = {"Authorization": f"Bearer {_first_line(params.bearer_file)}"}
    if found:
        secret = {name: value for name, value in secret.items() if name.lower() != "authorization"}
    return RequestHeaders(shared, secret | found)


def _basic(user: str | None, password: str | None) -> dict[str, str]:
    if user is None:
        return {}
    pair = base64.b64encode(f"{user}:{password or ''}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


def _parse_header(line: str, key: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name.strip() or not _is_printable(line):
        raise ConfigError("a header is written `Name: value`", table="source http", key=key)
    return name.strip(), value.strip()


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as exc:
        raise DeviceError(f"http: {path}: {exc.strerror}; check the path", exc.errno) from exc
    except UnicodeDecodeError:
        raise DeviceError(f"http: {path} is no UTF-8 text; check the file") from None


def _first_line(path: Path) -> str:
    line = _read(path).partition("\n")[0].strip()
    if not line:
        raise DeviceError(f"http: {path}: its first line is empty; it is the secret")
    if not _is_printable(line):
        raise DeviceError(f"http: {path}: its first line has control characters; check the file")
    return line


def _is_printable(text: str) -> bool:
    """Whether a header may hold this: RFC 9110, section 5.5, knows no control but the tab."""
    return all(char == "\t" or " " <= char != "\x7f" for char in text)
