"""Names to addresses, in threads nobody has to wait for: a resolver may hang for longer than we do.

asyncio's own getaddrinfo runs in threads that are joined at the end, which would keep a command
that has given the name up from ending.
"""

import asyncio
import functools
import ipaddress
import socket
from typing import Any

from minicloud.daemons import Daemons

__all__ = ["AddressInfo", "addresses_of", "look_up"]

AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]
"""As `socket.getaddrinfo` has it."""


async def look_up(host: str, port: int | None = None, *, family: int = 0) -> list[AddressInfo]:
    """Look up what TCP may connect to.

    Args:
        host: a name or an address.
        port: of it.
        family: of the socket, 0 for any.

    Raises:
        OSError: socket.gaierror, as it says.
    """
    ask = functools.partial(
        socket.getaddrinfo, host, port, family=family, type=socket.SOCK_STREAM
    )  # fmt: skip
    try:
        ipaddress.ip_address(host)
    except ValueError:
        resolver = Daemons("resolver", 1)
        answer = resolver.submit(ask)
        resolver.end()
        return await answer  # type: ignore[return-value]  # sockaddr is a tuple for both families
    return ask()  # type: ignore[return-value]  # an address takes no time


async def addresses_of(host: str, *, seconds: float, family: int = 0) -> list[str]:
    """Look up a host's addresses; a name that is not resolved in so many seconds has none."""
    try:
        async with asyncio.timeout(seconds):
            found = await look_up(host, family=family)
    except (TimeoutError, OSError):
        return []
    return [str(address[0]) for *_, address in found]
