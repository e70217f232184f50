"""Where guests can be reached: libvirt's own leases, the node's ARP table, the guest's agent.

In this order, because a lease is what the guest was given, ARP is what was seen of it, and an agent
may keep one waiting. Nothing here is an error: a guest nobody knows an address of has none yet.
"""

import enum
import ipaddress
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from minicloud.hypervisor.binding import libvirt_module

__all__ = ["Address", "Source", "addresses_of", "choose"]

# libvirt waits 5 s for an agent that is connected and does not answer; a list waits for one such.
_AGENTS: Final = 2.0


class Source(enum.StrEnum):
    """Who knows the address."""

    LEASE = "lease"
    ARP = "arp"
    AGENT = "agent"


@dataclass(frozen=True, slots=True)
class Address:
    """An address of a guest.

    Attributes:
        ip: without prefix.
        source: who knows it.
        mac: of the card it is on, or "".
    """

    ip: str
    source: Source
    mac: str = ""


def addresses_of(
    connection: Any, uuids: Sequence[str], *, agents: float = _AGENTS
) -> Mapping[str, Address]:
    """Return the best address of each guest that has one; runs on a thread of the node.

    Args:
        connection: the virConnect.
        uuids: of active guests.
        agents: seconds after which no further agent is asked.
    """
    libvirt = libvirt_module()
    end = time.monotonic() + agents
    found: dict[str, Address] = {}
    for uuid in uuids:
        try:
            domain = connection.lookupByUUIDString(uuid)
        except libvirt.libvirtError:
            continue  # it has gone
        for source in Source:
            if source is Source.AGENT and time.monotonic() > end:
                break
            if address := choose(_ask(domain, source), source):
                found[uuid] = address
                break
    return found


def choose(interfaces: Mapping[str, Mapping[str, Any]], source: Source) -> Address | None:
    """Choose the address to speak to: IPv4 before IPv6; no loopback, no link-local.

    Args:
        interfaces: as libvirt's `interfaceAddresses` returns them.
        source: it was asked.
    """
    candidates = [
        (ipaddress.ip_address(entry["addr"].partition("%")[0]), interface.get("hwaddr") or "")
        for interface in interfaces.values()
        for entry in interface.get("addrs") or ()
    ]
    usable = [
        (ip, mac)
        for ip, mac in candidates
        if not (ip.is_loopback or ip.is_link_local or ip.is_unspecified)
    ]
    if not usable:
        return None
    ip, mac = min(usable, key=lambda pair: pair[0].version)
    return Address(str(ip), source, mac)


def _ask(domain: Any, source: Source) -> Mapping[str, Mapping[str, Any]]:
    libvirt = libvirt_module()
    number = {
        Source.LEASE: libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE,
        Source.ARP: libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP,
        Source.AGENT: libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT,
    }[source]
    try:
        interfaces: Mapping[str, Mapping[str, Any]] = domain.interfaceAddresses(number, 0)
    except libvirt.libvirtError:
        return {}  # no such network, no agent: the next one may know
    return interfaces
