"""When a request that failed is made again, and when it is given up.

One object holds the tries of one read: what is transient is tried again with growing, random
waits until so much time has passed without a byte of progress. What is not transient goes on as
the error it is.
"""

import os
import random
import ssl
import time
from typing import NoReturn

import aiohttp

from nbdserve.errors import SourceUnavailableError
from nbdserve.formats.httprange import backoff_ceiling

__all__ = ["FAILURES", "TransientError", "Tries", "cause_of"]


class TransientError(Exception):
    """This try failed; another one may not.

    Args:
        cause: for messages.
        retry_after: the seconds the server asked to be left alone.
        pushed_back: the server said that it is asked too much.
    """

    def __init__(
        self, cause: str, retry_after: float | None = None, *, pushed_back: bool = False
    ) -> None:
        super().__init__(cause)
        self.retry_after = retry_after
        self.pushed_back = pushed_back


_UNTRUSTED = frozenset({18, 19, 20, 21})  # X509_V_ERR_*: self-signed, or by a CA nobody knows
_PROXY_REMEDY = {407: " (its user and password go into https_proxy=)"}

FAILURES = (TransientError, aiohttp.ClientError, OSError)
"""What a try may end with, time-outs and device errors included (they are OSErrors)."""


class Tries:
    """The tries of one read. Moments are those of `time.monotonic`.

    Args:
        name: how messages call the source.
        patience: seconds without progress after which it is given up.
    """

    def __init__(self, name: str, patience: float) -> None:
        self._name = name
        self._patience = patience
        self._failed: dict[object, int] = {}
        self._not_before: dict[object, float] = {}
        self._cause: Exception | None = None
        self._deadline = time.monotonic() + patience

    def progressed(self) -> None:
        """Count anew: a byte came."""
        self._failed.clear()
        self._not_before.clear()
        self._deadline = time.monotonic() + self._patience

    def failed(self, mirror: object, exc: Exception) -> float:
        """Note that a try at a mirror failed.

        Returns:
            The seconds in which this mirror shall not be asked again.
        """
        self._cause = exc
        times = self._failed[mirror] = self._failed.get(mirror, 0) + 1
        wait = random.uniform(0, backoff_ceiling(times))  # noqa: S311 -- jitter is no secret
        asked = exc.retry_after if isinstance(exc, TransientError) else None
        wait = max(wait, asked or 0.0)
        self._not_before[mirror] = time.monotonic() + wait
        return wait

    def not_before(self, mirror: object) -> float:
        """Tell from when on this read may ask a mirror."""
        return self._not_before.get(mirror, 0.0)

    def wait_until(self, moment: float) -> float:
        """Return the seconds to wait until `moment`.

        Raises:
            SourceUnavailableError: there is no such patience left.
        """
        if moment > self._deadline:
            self._give_up()
        return max(0.0, moment - time.monotonic())

    def _give_up(self) -> NoReturn:
        """Raise for the last cause."""
        cause = "asked to be left alone by Retry-After"
        if self._cause is not None:
            cause = cause_of(self._cause)
        raise SourceUnavailableError(
            f"http: {self._name}: {cause}; check the URL, the server and the network"
        ) from self._cause


def cause_of(exc: Exception) -> str:
    """Say why a try failed; never with the address as it was written, which may be a secret."""
    if isinstance(exc, aiohttp.ClientHttpProxyError):
        return f"the proxy answered {exc.status} {exc.message}{_PROXY_REMEDY.get(exc.status, '')}"
    if isinstance(exc, aiohttp.ClientResponseError):
        return f"no HTTP answer ({' '.join(exc.message.split())[:120]})"
    if isinstance(exc, aiohttp.InvalidURL):
        return "an address that cannot be used"
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        return f"the certificate of {exc.host} port {exc.port} is refused: {_refusal(exc)}"
    if isinstance(exc, aiohttp.ClientConnectorError):
        return f"cannot connect to {exc.host} port {exc.port}: {_reason(exc.os_error)}"
    return str(exc) or type(exc).__name__


def _refusal(exc: aiohttp.ClientConnectorCertificateError) -> str:
    error = exc.certificate_error
    if not isinstance(error, ssl.SSLCertVerificationError):
        return str(error)
    remedy = " (cafile= names a CA to trust)" if error.verify_code in _UNTRUSTED else ""
    return f"{error.verify_message}{remedy}"


def _reason(error: OSError) -> str:
    """Say why a connection was refused; asyncio's own text is the address once more."""
    text = error.strerror or str(error)
    if error.errno and text.startswith("Connect call failed"):
        return os.strerror(error.errno)
    return text
