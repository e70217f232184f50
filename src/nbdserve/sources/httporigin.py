"""One address on a web server, and how to ask it: its credentials, its redirects.

A redirect is followed when the file is opened and its target remembered; when the target fails
(signed addresses expire) it is resolved again from the address the operator gave. Credentials go
to the origin they were given for, and never to the target of a redirect elsewhere.
"""

from collections.abc import Mapping

import aiohttp
from yarl import URL

from nbdserve.errors import ConfigError, DeviceError
from nbdserve.sources.httpcredentials import RequestHeaders, request_headers
from nbdserve.sources.httpgate import Gate
from nbdserve.sources.httpparams import HttpParams
from nbdserve.sources.httppool import Pool, PoolKey, join_pool, leave_pool
from nbdserve.sources.httpproxy import Proxies
from nbdserve.sources.httpurl import parse_url, redacted

__all__ = ["Origin"]

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
        url = parse_url(text)
        self._user, self._password = url.user, url.password
        self._url = url.with_user(None)
        self._owner = owner
        self._is_trusted = is_trusted
        self._target: URL | None = None
        self._with_user: dict[URL, URL] = {}  # targets with a user, which an answer does not show
        self._key: PoolKey | None = None
        self._pool: Pool | None = None
        self._headers = RequestHeaders({}, {})
        self._proxies = Proxies()
        self._timeout = aiohttp.ClientTimeout(
            total=None,
            connect=None,
            sock_connect=min(_CONNECT_TIMEOUT, params.timeout),
            sock_read=params.timeout,
        )

    @property
    def name(self) -> str:
        """The address as messages show it: without credentials, which a query may be too."""
        return f"{self._url.with_query(None)}?…" if self._url.query_string else str(self._url)

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
        self._headers = request_headers(
            self._params, self._user, self._password, is_trusted=self._is_trusted
        )
        secrets = frozenset(self._headers.secret.items())
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
            own = {**self._headers.all, **headers}
            if url.origin() == self._url.origin():
                own |= self._headers.secret
            response = await self._pool.session.get(
                url,
                headers=own,
                allow_redirects=False,
                timeout=self._timeout,
                proxy=self._proxies.of(url.origin()),
            )
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or location is None:
                return response
            response.release()
            url = self._redirected(url, location)
        raise DeviceError(f"http: {self.name}: redirected in a circle; check the URL")

    def _redirected(self, url: URL, location: str) -> URL:
        # by hand, since a client that follows redirects itself takes all headers along, and a
        # secret need not be called Authorization
        try:
            found = parse_url(str(url.join(URL(location, encoded=True))))
        except (ValueError, ConfigError):
            raise DeviceError(
                f"http: {self.name}: redirected to {redacted(location)!r}, which is no http:// or "
                "https:// URL; the server is at fault"
            ) from None
        # at home the operator's own credentials are the ones that count
        bare = found.with_user(None)
        if found.origin() == self._url.origin():
            return bare
        if found.user is not None:
            self._with_user[bare] = found
        return found

    def remember(self, response: aiohttp.ClientResponse) -> None:
        """Go straight to where this answer came from from now on."""
        if response.url != self._url:
            self._target = self._with_user.get(response.url, response.url)

    def forget(self) -> None:
        """Go to the operator's address again."""
        self._target = None
        self._with_user.clear()
