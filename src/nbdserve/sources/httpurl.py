"""Addresses of files on web servers: as written, and as messages may show them.

An address may be a secret itself: credentials before its host, a signature in its query. So
messages, which go to the log and to every NBD client, never hold one as it was written.
"""

import re

from yarl import URL

from nbdserve.errors import ConfigError

__all__ = ["parse_url", "redacted"]

_USER_INFO = re.compile(r"(?<=//).*@", re.DOTALL)  # a password that was not quoted may have a /
_QUERY = re.compile(r"\?.+", re.DOTALL)


def redacted(text: str) -> str:
    """Return an address, which need not be a sound one, without user, password and query.

    Where in doubt, more is left out: all before the last `@`.
    """
    return _QUERY.sub("?…", _USER_INFO.sub("", text))


def parse_url(text: str) -> URL:
    """Parse an address as written.

    Raises:
        ConfigError: it is none.
    """
    shown = repr(redacted(text))
    try:
        url = URL(text, encoded=True)  # signed addresses must not be quoted anew
        usable = url.scheme in ("http", "https") and url.host and url.port
    except ValueError as exc:
        # a port that is none is quoted by who refuses it, and may be half of a password
        reason = "" if "@" in text else f": {exc}"
        raise ConfigError(f"{shown} is no URL{reason}", table="source http", key="url") from None
    if not usable:
        raise ConfigError(f"{shown} is no http:// or https:// URL", table="source http", key="url")
    return url.with_fragment(None)
