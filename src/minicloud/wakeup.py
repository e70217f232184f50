"""Wake-on-LAN: the magic packet, and where it is sent. Pure.

A sleeping card listens for its own address sixteen times over, whatever carries it (AMD, "Magic
Packet Technology", 20213). A broadcast reaches it without ARP, which it does not answer: on every
network of this machine by 255.255.255.255, which leaves by one card alone where there are several,
and on the node's own network by that network's broadcast address.
"""

import ipaddress
import re
import sys
from collections.abc import Iterable
from typing import Final

__all__ = ["DISCARD", "broadcasts", "magic_packet"]

DISCARD: Final = 9  # the UDP port; nobody listens there, the card looks at the bytes alone

_EVERYWHERE: Final = "255.255.255.255"
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.IGNORECASE)
_UP: Final = 1  # RTF_UP
_GATEWAY: Final = 2  # RTF_GATEWAY


def magic_packet(mac: str) -> bytes:
    """Make the packet that wakes a card.

    Args:
        mac: aa:bb:cc:dd:ee:ff.

    Raises:
        ValueError: it is none.
    """
    if not _MAC.fullmatch(mac):
        raise ValueError(f"{mac!r} is no MAC address; write aa:bb:cc:dd:ee:ff")
    return b"\xff" * 6 + bytes.fromhex(mac.replace(":", "")) * 16


def broadcasts(routes: str, addresses: Iterable[str] = ()) -> tuple[str, ...]:
    """Tell where to send it.

    Args:
        routes: /proc/net/route (Linux, fib_trie.c: destination, flags and mask are hexadecimal, in
            the byte order of this machine).
        addresses: of the node, if its name resolves; others than IPv4 are passed over.

    Returns:
        255.255.255.255, and the broadcast address of each network of this machine the node is on.
    """
    networks = list(_networks(routes))
    found = [_EVERYWHERE]
    for text in addresses:
        try:
            address = ipaddress.IPv4Address(text)
        except ValueError:
            continue
        found += [str(n.broadcast_address) for n in networks if address in n]
    return tuple(dict.fromkeys(found))


def _networks(routes: str) -> Iterable[ipaddress.IPv4Network]:
    """List the networks this machine has a card on."""
    for line in routes.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8:
            continue
        flags, mask = int(fields[3], 16), _address(fields[7])
        if flags & _UP and not flags & _GATEWAY and int(mask):
            yield ipaddress.IPv4Network(f"{_address(fields[1])}/{mask}", strict=False)


def _address(word: str) -> ipaddress.IPv4Address:
    """Read an address as the kernel prints it: a number in the byte order of the machine."""
    return ipaddress.IPv4Address(int(word, 16).to_bytes(4, sys.byteorder))
