"""`minicloud ip`: where a guest can be reached, and who says so."""

import argparse
from typing import Any, Final

from minicloud.commands.context import Context
from minicloud.commands.guests import add_guest, find_guest, guest_document, titled
from minicloud.errors import UsageError
from minicloud.hypervisor.sightings import Sightings, look_around
from minicloud.model.address import Address, AddressSource
from minicloud.model.guest import Guest
from minicloud.model.view import Outcome, Table

__all__ = ["CHANGES", "HELP", "add_arguments", "address_document", "ip_outcome", "run", "silence"]

HELP: Final = "where a guest can be reached: by lease, guest agent and ARP"
CHANGES: Final = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `ip` alone takes."""
    add_guest(parser)


async def run(context: Context, arguments: argparse.Namespace) -> Outcome:
    """Ask all who may know."""
    context.report.step("asking for the guest's addresses")
    guest = await find_guest(context, arguments.guest)
    if not guest.is_active:
        raise UsageError(f"{titled(guest)} is off; minicloud start starts it")
    hypervisor = await context.cluster.hypervisor(guest.node)
    session = await context.cluster.session(guest.node)
    return ip_outcome(guest, await look_around(hypervisor, session, guest.uuid))


def ip_outcome(guest: Guest, sightings: Sightings) -> Outcome:
    """Make what is shown; status 2 where nobody knows an address."""
    addresses = sightings.addresses
    silent = {str(source): why for source, why in sightings.silent.items()}
    document: dict[str, Any] = {
        "guest": guest_document(guest),
        "addresses": [address_document(address) for address in addresses],
        "silent": silent,
        "errors": [],
    }
    if addresses:
        rows = [(one.address, ", ".join(one.sources), one.interface, one.mac) for one in addresses]
        return Outcome(document, [Table(("address", "source", "interface", "mac"), rows)])
    message = f"nobody knows an address of {titled(guest)}: {silence(sightings)}"
    remedy = "it may still be starting; minicloud console shows"
    document["errors"] = [
        {"node": guest.node, "reason": "no-address", "message": message, "remedy": remedy}
    ]
    return Outcome(document, errors=(f"{message}; {remedy}",), status=2)


def address_document(address: Address) -> dict[str, Any]:
    """Tell of an address for programs."""
    return {
        "address": address.address,
        "prefix": address.prefix or None,
        "mac": address.mac or None,
        "interface": address.interface or None,
        "sources": [str(source) for source in address.sources],
    }


def silence(sightings: Sightings) -> str:
    """Say what the sources said where none of them knew an address of use."""
    if not sightings.macs:
        return "it has no network card"
    told = {
        source: ", ".join(one.address for one in seen) for source, seen in sightings.seen.items()
    }
    words = {
        "lease": "no DHCP lease of libvirt's",
        "agent": "the guest agent tells none",
        "arp": "the node has not heard from it",
    }
    return "; ".join(
        f"only {told[source]} by {source}" if source in told
        else sightings.silent.get(source, words[source])
        for source in AddressSource
    )  # fmt: skip
