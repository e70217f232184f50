"""Connections to web servers, shared by all http sources of the process.

A hundred exports of one mirror are one client to it: they share its kept-alive connections, and
the gate that says how many requests it gets at once. What would let one source speak with the
rights of another keeps pools apart: TLS settings and credentials. A pool lives as long as someone
uses it, and belongs to the event loop it was made in.
"""

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from yarl import URL

from nbdserve.errors import DeviceError
from nbdserve.sources.httpgate import Gate

__all__ = ["Pool", "PoolKey", "join_pool", "leave_pool"]

_KEEP_ALIVE = 60.0  # seconds an idle connection is kept; nginx ends them after 75


@dataclass(frozen=True, slots=True)
class PoolKey:
    """What two sources must have in common to share connections.

    Attributes:
        insecure: certificates are not verified.
        cafile: certificates trusted instead of the system's.
        secrets: headers with credentials.
    """

    insecure: bool
    cafile: Path | None
    secrets: frozenset[tuple[str, str]]


class Pool:
    """The connections of sources that share a `PoolKey`, and the gates of their hosts.

    Raises:
        DeviceError: the certificates cannot be read.
    """

    def __init__(self, key: PoolKey) -> None:
        self._gates: dict[URL, Gate] = {}
        self.users = 0
        self.session = aiohttp.ClientSession(
            # the gates bound what is under way; a second bound here would only hide waiting
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE, ssl=_tls(key)),
            auto_decompress=False,
            requote_redirect_url=False,
        )

    def gate(self, url: URL) -> Gate:
        """Find the gate of an address's host."""
        return self._gates.setdefault(url.origin(), Gate())

    def leave(self, owner: object) -> None:
        """Forget a source at all gates."""
        for gate in self._gates.values():
            gate.leave(owner)


_pools: dict[tuple[asyncio.AbstractEventLoop, PoolKey], Pool] = {}


def join_pool(key: PoolKey) -> Pool:
    """Find or make the pool of this event loop; give it back with `leave_pool`."""
    place = (asyncio.get_running_loop(), key)
    pool = _pools.get(place)
    if pool is None:
        pool = _pools[place] = Pool(key)
    pool.users += 1
    return pool


async def leave_pool(key: PoolKey, owner: object) -> None:
    """Give a pool back; the last one out closes its connections."""
    place = (asyncio.get_running_loop(), key)
    pool = _pools[place]
    pool.leave(owner)
    pool.users -= 1
    if not pool.users:
        del _pools[place]
        await pool.session.close()


def _tls(key: PoolKey) -> ssl.SSLContext | bool:
    if key.insecure:
        return False
    if key.cafile is None:
        return True
    try:
        return ssl.create_default_context(cafile=key.cafile)
    except (OSError, ssl.SSLError) as exc:
        raise DeviceError(f"http: cafile {key.cafile}: {exc}; check the file") from exc
