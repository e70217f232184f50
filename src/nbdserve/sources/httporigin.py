"""One address on a web server, and how to ask it: its credentials, its redirects.

A redirect is followed when the file is opened and its target remembered; when the target fails
(signed addresses expire) it is resolved again from the address the operator gave. Credentials go
to the origin they were given for, and never to the target of a redirect elsewhere.
"""

import base64
from collections.abc import Mapping
from pathlib import Path
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from nbdserve import __version__
from nbdserve.errors import ConfigError, DeviceError
from nbdserve.sources.httpgate import Gate
from nbdserve.sources.httpparams import HttpParams
from nbdserve.sources.httppool import Pool, PoolKey, join_pool, leave_pool

__all__ = ["Origin", "parse_url"]

_CONNECT_TIMEOUT = 15.0
_MOST_REDIRECTS = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Origin:
    """One address and how to ask it.

    Args:
        text: the address as written.
        params: the source's.
        owner: the source, as the gates know it.
        is_trusted: the operator's credentials are for it.

    Raises:
        ConfigError: it is no URL.
    """

    def __init__(self, text: str, params: HttpParams, owner: object, *, is_trusted: bool) -> None:
        self._params = params
        self._url = parse_url(text)
        self._owner = owner
        self._is_trusted = is_trusted
        self._target: URL | None = None
        self._key: PoolKey | None = None
        self._pool: Pool | None = None
        self._secrets: dict[str, str] = {}
        self._headers: dict[str, str] = {}
        self._proxies: dict[URL, str | None] = {}
        self._timeout = aiohttp.ClientTimeout(
            total=None,
            connect=None,
            sock_connect=min(_CONNECT_TIMEOUT, params.timeout),
            sock_read=params.timeout,
        )

    @property
    def name(self) -> str:
        """The address as messages show it: without credentials, which a query may be too."""
        url = self._url.with_user(None)
        return f"{url.with_query(None)}?…" if url.query_string else str(url)

    @property
    def is_redirected(self) -> bool:
        """Whether a remembered target stands in for the address."""
        return self._target is not None

    @property
    def gate(self) -> Gate:
        """The gate of the host that is asked now."""
        assert self._pool is not None
        gate = self._pool.gate(self._target or self._url)
        gate.join(self._owner, self._params.connections)
        return gate

    def open(self) -> None:
        """Read the files with credentials and join the connections of others.

        Raises:
            DeviceError: such a file cannot be read.
        """
        self._headers = {
            "User-Agent": f"nbdserve/{__version__}",
            "Accept-Encoding": "identity",  # a range of a compressed answer means nothing
            **dict(_parse_header(line) for line in self._params.header),
        }
        self._secrets = self._credentials()
        secrets = frozenset(self._secrets.items())
        key = PoolKey(self._params.insecure, self._params.cafile, secrets)
        self._pool = join_pool(key)
        self._key = key

    async def close(self) -> None:
        """Leave the connections to others."""
        if self._key is not None:
            key, self._key, self._pool = self._key, None, None
            await leave_pool(key, self._owner)

    async def get(self, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """Ask for the file, through redirects.

        The answer is the caller's to close; half read, that ends its connection, else the
        connection is kept.
        """
        assert self._pool is not None
        url = self._target or self._url
        for _ in range(_MOST_REDIRECTS + 1):
            own = {**self._headers, **headers}
            if url.origin() == self._url.origin():
                own |= self._secrets
            response = await self._pool.session.get(
                url,
                headers=own,
                allow_redirects=False,
                timeout=self._timeout,
                proxy=self._proxy(url.origin()),
            )
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or location is None:
                return response
            response.release()
            url = self._redirected(url, location)
        raise DeviceError(f"http: {self.name}: redirected in a circle; check the URL")

    def _proxy(self, origin: URL) -> str | None:
        # looked up once: aiohttp's trust_env looks on every request, each time in two threads
        if origin not in self._proxies:
            host = f"{origin.host}:{origin.port}"
            found = None if proxy_bypass(host) else getproxies().get(origin.scheme)
            self._proxies[origin] = found
        return self._proxies[origin]

    def _redirected(self, url: URL, location: str) -> URL:
        # by hand, since a client that follows redirects itself takes all headers along, and a
        # secret need not be called Authorization
        try:
            return parse_url(str(url.join(URL(location, encoded=True))))
        except (ValueError, ConfigError) as exc:
            raise DeviceError(
                f"http: {self.name}: redirected to {location!r}, which is no http:// or https:// "
                "URL; the server is at fault"
            ) from exc

    def remember(self, response: aiohttp.ClientResponse) -> None:
        """Go straight to where this answer came from from now on."""
        if response.url != self._url:
            self._target = response.url

    def forget(self) -> None:
        """Go to the operator's address again."""
        self._target = None

    def _credentials(self) -> dict[str, str]:
        given = self._params
        found: dict[str, str] = {}
        user, password = self._url.user, self._url.password
        self._url = self._url.with_user(None)
        if not self._is_trusted:
            return _basic(user, password)
        if given.header_file is not None:
            lines = _read(given.header_file).splitlines()
            found |= dict(_parse_header(line) for line in lines if line.strip())
        if given.user is not None:
            user = given.user
        if given.password_file is not None:
            password = _first_line(given.password_file)
        if given.bearer_file is not None:
            found["Authorization"] = f"Bearer {_first_line(given.bearer_file)}"
        else:
            found |= _basic(user, password)
        return found


def parse_url(text: str) -> URL:
    """Parse an address as written.

    Raises:
        ConfigError: it is none.
    """
    try:
        url = URL(text, encoded=True)  # signed addresses must not be quoted anew
        usable = url.scheme in ("http", "https") and url.host and url.port
    except ValueError as exc:
        raise ConfigError(f"{text!r} is no URL: {exc}", table="source http", key="url") from exc
    if not usable:
        raise ConfigError(f"{text!r} is no http:// or https:// URL", table="source http", key="url")
    return url.with_fragment(None)


def _basic(user: str | None, password: str | None) -> dict[str, str]:
    if user is None:
        return {}
    pair = base64.b64encode(f"{user}:{password or ''}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


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
