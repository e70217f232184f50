"""Where an HTTP source's bytes come from: one session, its credentials, its redirects.

A redirect is followed when the file is opened and its target remembered; when the target fails
(signed addresses expire) it is resolved again from the address the operator gave. Credentials go
to the origin they were given for, and never to the target of a redirect elsewhere.
"""

import base64
import ssl
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import aiohttp
from yarl import URL

from nbdserve import __version__
from nbdserve.errors import ConfigError, DeviceError
from nbdserve.sources.httpparams import HttpParams

__all__ = ["Origin"]

_CONNECT_TIMEOUT = 15.0
_MOST_REDIRECTS = 10


class Origin:
    """One address and how to ask it.

    Args:
        params: the source's.

    Raises:
        ConfigError: the URL is none.
    """

    def __init__(self, params: HttpParams) -> None:
        self._params = params
        self._url = _parse_url(params.url)
        self._target: URL | None = None
        self._session: aiohttp.ClientSession | None = None
        self._secrets: dict[str, str] = {}
        self._headers: dict[str, str] = {}
        self.requests = 0
        """Requests made so far."""

    @property
    def name(self) -> str:
        """The address as messages show it: without credentials."""
        return str(self._url.with_user(None))

    @property
    def is_redirected(self) -> bool:
        """Whether a remembered target stands in for the address."""
        return self._target is not None

    def open(self) -> None:
        """Read the files with credentials and make the session.

        Raises:
            DeviceError: such a file cannot be read.
        """
        self._headers = {
            "User-Agent": f"nbdserve/{__version__}",
            "Accept-Encoding": "identity",  # a range of a compressed answer means nothing
            **dict(_parse_header(line) for line in self._params.header),
        }
        self._secrets = self._credentials()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._params.connections, keepalive_timeout=60, ssl=self._tls()
            ),
            timeout=aiohttp.ClientTimeout(
                total=None,
                connect=None,
                sock_connect=min(_CONNECT_TIMEOUT, self._params.timeout),
                sock_read=self._params.timeout,
            ),
            auto_decompress=False,
            trust_env=True,
            requote_redirect_url=False,
        )

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def get(
        self, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Ask for the file; the response closes its connection if it is left half read."""
        assert self._session is not None
        url = self._target or self._url
        own = {**self._headers, **headers}
        if url.origin() == self._url.origin():
            own |= self._secrets
        self.requests += 1
        return self._session.get(url, headers=own, max_redirects=_MOST_REDIRECTS)

    def remember(self, response: aiohttp.ClientResponse) -> None:
        """Go straight to where this answer came from from now on."""
        if response.history:
            self._target = response.url

    def forget(self) -> None:
        """Go to the operator's address again."""
        self._target = None

    def _credentials(self) -> dict[str, str]:
        given = self._params
        found: dict[str, str] = {}
        if given.header_file is not None:
            lines = _read(given.header_file).splitlines()
            found |= dict(_parse_header(line) for line in lines if line.strip())
        user, password = self._url.user, self._url.password
        if given.user is not None:
            user = given.user
        if given.password_file is not None:
            password = _first_line(given.password_file)
        if given.bearer_file is not None:
            found["Authorization"] = f"Bearer {_first_line(given.bearer_file)}"
        elif user is not None:
            pair = base64.b64encode(f"{user}:{password or ''}".encode()).decode()
            found["Authorization"] = f"Basic {pair}"
        self._url = self._url.with_user(None)
        return found

    def _tls(self) -> ssl.SSLContext | bool:
        if self._params.insecure:
            return False
        if self._params.cafile is None:
            return True
        try:
            return ssl.create_default_context(cafile=self._params.cafile)
        except (OSError, ssl.SSLError) as exc:
            raise DeviceError(f"http: cafile {self._params.cafile}: {exc}; check the file") from exc


def _parse_url(text: str) -> URL:
    try:
        url = URL(text, encoded=True)  # signed addresses must not be quoted anew
        usable = url.scheme in ("http", "https") and url.host and url.port
    except ValueError as exc:
        raise ConfigError(f"{text!r} is no URL: {exc}", table="source http", key="url") from exc
    if not usable:
        raise ConfigError(f"{text!r} is no http:// or https:// URL", table="source http", key="url")
    return url


def _parse_header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name.strip() or any(c in line for c in "\r\n\0"):
        raise ConfigError("a header is written `Name: value`", table="source http", key="header")
    return name.strip(), value.strip()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as exc:
        raise DeviceError(f"http: {path}: {exc.strerror}; check the path", exc.errno) from exc


def _first_line(path: Path) -> str:
    lines = _read(path).splitlines()
    if not lines:
        raise DeviceError(f"http: {path} is empty; its first line is the secret")
    return lines[0]
