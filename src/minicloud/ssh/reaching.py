"""TCP to a node: its name, its address, a socket; and what the network says where there is none.

Addresses are tried a quarter of a second apart (RFC 8305), so that a dead IPv6 costs no more.

A node that is switched off and one behind a black hole both stay silent for as long as we wait;
the kernel knows the difference: it got no answer to ARP for the one that is off.
"""

import asyncio
import errno
import socket
from pathlib import Path
from typing import Final

import aiohappyeyeballs

from minicloud.deadline import seconds_text, time_left
from minicloud.errors import NodeError, Reason
from minicloud.resolving import AddressInfo, look_up

__all__ = ["is_silent_on_the_link", "reach"]

_STAGGER: Final = 0.25  # RFC 8305, section 5
_ARP: Final = Path("/proc/net/arp")  # proc(5): address, type, flags, hardware address …
_OFF: Final = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN})


async def reach(host: str, port: int, *, family: int, seconds: float) -> socket.socket:
    """Connect to a host.

    Args:
        host: a name or an address.
        port: of TCP.
        family: of the socket, 0 for any.
        seconds: to wait at most, the look-up of the name included.

    Returns:
        A connected socket that does not block; the caller owns it.

    Raises:
        NodeError: why there is none.
    """
    seconds = time_left(seconds) or 0.0
    addresses: list[AddressInfo] = []
    try:
        async with asyncio.timeout(seconds):
            addresses = await look_up(host, port, family=family)
            return await aiohappyeyeballs.start_connection(
                addresses,
                happy_eyeballs_delay=_STAGGER,
                loop=asyncio.get_running_loop(),
            )
    except TimeoutError:
        raise _silence(host, port, addresses, seconds) from None
    except socket.gaierror as exc:
        raise NodeError(
            Reason.NAME,
            f"the name {host} does not resolve: {exc.strerror}",
            "correct `host` in the inventory, or use an address",
        ) from None
    except OSError as exc:
        raise _refusal(host, port, exc) from None


def is_silent_on_the_link(address: str) -> bool:
    """Whether the kernel asked the link for this IPv4 address and nobody answered."""
    try:
        rows = [line.split() for line in _ARP.read_text().splitlines()[1:]]
    except OSError:
        return False
    return any(row[0] == address and int(row[2], 16) == 0 for row in rows if len(row) > 3)


def _silence(host: str, port: int, addresses: list[AddressInfo], seconds: float) -> NodeError:
    if not addresses:
        return NodeError(
            Reason.NAME,
            f"the name {host} was not resolved within {seconds_text(seconds)}",
            "is the name server up? An address in the inventory needs none",
        )
    if all(is_silent_on_the_link(str(address[4][0])) for address in addresses):
        return _off(f"nobody answers for {addresses[0][4][0]} on the link")
    return NodeError(
        Reason.UNREACHABLE,
        f"no answer from {host} port {port} within {seconds_text(seconds)}",
        "a firewall drops it, or its network is cut",
    )


def _refusal(host: str, port: int, exc: OSError) -> NodeError:
    if exc.errno == errno.ECONNREFUSED:
        return NodeError(
            Reason.REFUSED,
            f"{host} is up, but nothing listens on port {port}",
            "start sshd there: systemctl enable --now sshd",
        )
    if exc.errno in _OFF:
        return _off(_words(exc.errno))
    if exc.errno == errno.ETIMEDOUT:
        return NodeError(Reason.UNREACHABLE, f"no answer from {host} port {port}")
    return NodeError(Reason.UNREACHABLE, f"{host} port {port}: {exc.strerror or exc}")


def _off(why: str) -> NodeError:
    return NodeError(Reason.OFF, f"off: {why}")


def _words(number: int) -> str:
    return {errno.EHOSTUNREACH: "no route to host", errno.ENETUNREACH: "network unreachable"}.get(
        number, "it is down"
    )
