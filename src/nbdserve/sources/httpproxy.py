"""The proxies that the environment names: `http_proxy`, `https_proxy`, `no_proxy`.

Looked up once an origin: aiohttp's own look-up asks on every request, each time in two threads.
"""

from urllib.request import getproxies, proxy_bypass

from yarl import URL

from nbdserve.errors import DeviceError
from nbdserve.sources.httpurl import redacted

__all__ = ["Proxies"]


class Proxies:
    """Tells by which proxy an origin is reached."""

    def __init__(self) -> None:
        self._found: dict[URL, str | None] = {}

    def of(self, origin: URL) -> str | None:
        """Return the address of the proxy to `origin`; None for none.

        Raises:
            DeviceError: the environment names one that cannot be used.
        """
        if origin not in self._found:
            named = None
            if not proxy_bypass(f"{origin.host}:{origin.port}"):
                named = getproxies().get(origin.scheme)
            self._found[origin] = named and _address(origin.scheme, named)
        return self._found[origin]


def _address(scheme: str, named: str) -> str:
    """Check an address as the environment gives it; as everywhere, `host:port` is one of http."""
    text = named if "://" in named else f"http://{named}"
    try:
        url = URL(text)
        usable = url.scheme in ("http", "https") and url.host and url.port
    except ValueError:
        usable = False
    if not usable:
        raise DeviceError(
            f"http: {scheme}_proxy={redacted(named)} is no http:// or https:// proxy; "
            "name one, or the host in no_proxy"
        )
    return text
