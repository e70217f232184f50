"""What leases, the guest's agent and the node's ARP table say of a guest's addresses.

A source that is not there costs nothing: the agent is asked only where one is connected to its
channel. One that is connected and hangs is given up by libvirt itself after 5 s
(VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_DEFAULT); what the other sources said is not lost by that.
"""

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from minicloud.domain.devices import parse_devices
from minicloud.facts.addresses import useful_addresses
from minicloud.facts.neighbours import parse_arp
from minicloud.hypervisor.binding import libvirt_module
from minicloud.model.address import Address, AddressSource, Seen

if TYPE_CHECKING:
    from minicloud.hypervisor.driver import Hypervisor
    from minicloud.ssh.session import Session

__all__ = ["Sightings", "best_addresses", "look_around", "sight"]

_ASKING: Final = 15.0  # seconds: an agent that hangs costs libvirt 5, or twice that
_AGENTS: Final = 2.0  # seconds after which no further guest's agent is asked: one hung is enough
_NOT_ASKED: Final = "the guest agent was not asked"
_NO_AGENT: Final = "no guest agent is connected"


@dataclass(frozen=True, slots=True)
class Sightings:
    """What was said of one guest.

    Attributes:
        seen: by source.
        silent: source → why it said nothing; a source that knows no address is in neither.
        macs: of the guest's cards.
    """

    seen: dict[AddressSource, tuple[Seen, ...]]
    silent: dict[AddressSource, str]
    macs: frozenset[str]

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Those somebody may reach the guest by, the most trusted first."""
        return useful_addresses(self.seen, self.macs)


async def look_around(
    hypervisor: "Hypervisor", session: "Session", uuid: str, *, only_first: bool = False
) -> Sightings:
    """Ask all sources about a running guest.

    Args:
        hypervisor: of its node.
        session: to its node; used where libvirt cannot read the ARP table.
        uuid: of the guest.
        only_first: ask no further once a source knows an address of use.

    Raises:
        NodeError: the guest is gone, or the connection.
    """
    sightings = await hypervisor.call(sight(uuid, only_first=only_first), deadline=_ASKING)
    await _read_arp(session, [sightings])
    return sightings


async def best_addresses(
    hypervisor: "Hypervisor", session: "Session", uuids: Sequence[str]
) -> dict[str, Address]:
    """Tell the most trusted address of each running guest of a node that has one.

    Args:
        hypervisor: of the node.
        session: to it.
        uuids: of the guests; one that is gone by now has none.

    Raises:
        NodeError: the connection is lost.
    """
    found = await hypervisor.call(functools.partial(_sight_all, uuids=uuids), deadline=_ASKING)
    await _read_arp(session, [one for one in found.values() if not one.addresses])
    return {uuid: one.addresses[0] for uuid, one in found.items() if one.addresses}


async def _read_arp(session: "Session", sightings: Iterable[Sightings]) -> None:
    """Read the node's ARP table for those guests that libvirt could not read it for."""
    blind = [one for one in sightings if AddressSource.ARP in one.silent]
    if not blind:
        return
    table = await session.run(["cat", "/proc/net/arp"])
    if table.status != 0:
        return
    for one in blind:
        del one.silent[AddressSource.ARP]
        if seen := parse_arp(table.stdout.decode(errors="replace"), one.macs):
            one.seen[AddressSource.ARP] = seen


def _sight_all(connection: Any, uuids: Sequence[str]) -> dict[str, Sightings]:
    lib = libvirt_module()
    end = time.monotonic() + _AGENTS
    found = {}
    for uuid in uuids:
        asks_agent = time.monotonic() < end
        try:
            found[uuid] = sight(uuid, only_first=True, asks_agent=asks_agent)(connection)
        except lib.libvirtError as exc:
            if exc.get_error_code() != lib.VIR_ERR_NO_DOMAIN:
                raise
    return found


def sight(
    uuid: str, *, only_first: bool = False, asks_agent: bool = True
) -> Callable[[Any], Sightings]:
    """Ask the sources about a running guest, the most trusted first.

    Args:
        uuid: of the guest.
        only_first: ask no further once a source knows an address of use.
        asks_agent: ask the guest's agent, if there is one.
    """

    def work(connection: Any) -> Sightings:
        domain = connection.lookupByUUIDString(uuid)
        devices = parse_devices(domain.XMLDesc())
        sightings = Sightings({}, {}, frozenset(card.mac for card in devices.cards))
        for source in AddressSource:
            if source is AddressSource.AGENT and not (asks_agent and devices.is_agent_there):
                sightings.silent[source] = _NOT_ASKED if devices.is_agent_there else _NO_AGENT
                continue
            _ask(domain, source, sightings)
            if only_first and sightings.addresses:
                break
        return sightings

    return work


def _ask(domain: Any, source: AddressSource, sightings: Sightings) -> None:
    lib = libvirt_module()
    number = {
        AddressSource.LEASE: lib.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE,
        AddressSource.AGENT: lib.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT,
        AddressSource.ARP: lib.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP,
    }[source]
    try:
        seen = _read(domain.interfaceAddresses(number))
    except lib.libvirtError as exc:
        is_gone = exc.get_error_code() == lib.VIR_ERR_NO_DOMAIN
        if is_gone or exc.get_error_domain() == lib.VIR_FROM_RPC:
            raise  # it is not the source: the guest is gone, or the connection
        sightings.silent[source] = exc.get_error_message()
        return
    if seen:
        sightings.seen[source] = seen


def _read(interfaces: dict[str, dict[str, Any]]) -> tuple[Seen, ...]:
    return tuple(
        Seen(
            address=one["addr"],
            prefix=one["prefix"] or 0,
            mac=(facts.get("hwaddr") or "").lower(),
            interface=name,
        )
        for name, facts in interfaces.items()
        for one in facts.get("addrs") or ()
    )
