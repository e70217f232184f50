"""A guest's address, and who says so."""

import enum
from dataclasses import dataclass

__all__ = ["Address", "AddressSource", "Seen"]


class AddressSource(enum.StrEnum):
    """Where an address is known from, the most trusted first.

    A lease was given to this very card; the guest's agent tells what the guest believes; the
    node's ARP table what was seen on the wire some time ago.
    """

    LEASE = "lease"
    AGENT = "agent"
    ARP = "arp"


@dataclass(frozen=True, slots=True)
class Seen:
    """An address as one source gave it.

    Attributes:
        address: IPv4 or IPv6, as written there.
        prefix: bits of its network, 0 if that is not known (ARP).
        mac: of the card, lower case, or "".
        interface: its name on the node (lease, ARP) or in the guest (agent).
    """

    address: str
    prefix: int
    mac: str
    interface: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """An address a guest can be reached by.

    Attributes:
        address: IPv4 or IPv6.
        prefix: bits of its network, 0 if no source knows.
        mac: of its card, or "".
        interface: as the most trusted source calls it.
        sources: all that know of it, the most trusted first.
    """

    address: str
    prefix: int
    mac: str
    interface: str
    sources: tuple[AddressSource, ...]
