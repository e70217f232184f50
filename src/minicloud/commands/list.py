"""`minicloud list`: the guests of all nodes, minicloud's own and any other."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, Final

from minicloud.commands.amounts import age_text
from minicloud.commands.context import Context
from minicloud.commands.failures import failure_documents, failure_lines
from minicloud.errors import NodeError
from minicloud.hypervisor.sightings import best_addresses
from minicloud.model.address import Address
from minicloud.model.guest import Guest
from minicloud.model.inventory import Node
from minicloud.model.outcome import Row, exit_status
from minicloud.model.sizes import size_text
from minicloud.model.view import Outcome, Table

__all__ = ["CHANGES", "HELP", "Listing", "add_arguments", "list_outcome", "run"]

HELP: Final = "the guests of all nodes"
CHANGES: Final = False

_COLUMNS: Final = ("guest", "state", "node", "vcpus", "memory", "ip", "image", "age", "kind")


@dataclass(frozen=True, slots=True)
class Listing:
    """What one node says of its guests.

    Attributes:
        guests: all of them.
        addresses: by the guests' UUIDs; without those nobody knows.
    """

    guests: tuple[Guest, ...]
    addresses: Mapping[str, Address]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `list` alone takes: nothing."""


async def run(context: Context, arguments: argparse.Namespace) -> Outcome:  # noqa: ARG001 -- the protocol's
    """Ask every node for its guests."""
    context.report.step("asking the nodes")

    async def listing(node: Node) -> Listing:
        facts = await context.cluster.facts(node.name)
        uuids = [guest.uuid for guest in facts.guests if guest.is_active]
        return Listing(facts.guests, await _addresses(context, node, uuids))

    rows = await context.cluster.gather(listing, context.cluster.nodes(context.only))
    return list_outcome(rows, datetime.now(UTC))


async def _addresses(context: Context, node: Node, uuids: Sequence[str]) -> Mapping[str, Address]:
    """Ask for the guests' addresses; a node that cannot be asked this has told its guests."""
    if not uuids:
        return {}
    try:
        hypervisor = await context.cluster.hypervisor(node.name)
        session = await context.cluster.session(node.name)
        return await best_addresses(hypervisor, session, uuids)
    except NodeError:
        return {}


def list_outcome(rows: Sequence[Row[Listing]], now: datetime) -> Outcome:
    """Make what is shown of the nodes' answers.

    Args:
        rows: in the order of the nodes.
        now: to count ages from.
    """
    found = [
        (guest, row.value.addresses.get(guest.uuid))
        for row in rows
        if row.value is not None
        for guest in row.value.guests
    ]
    found.sort(key=lambda pair: (pair[0].name, pair[0].node))
    table = Table(
        _COLUMNS,
        [_cells(guest, address, now) for guest, address in found],
        right=frozenset({"vcpus", "memory", "age"}),
    )
    document = {
        "guests": [_document(guest, address, now) for guest, address in found],
        "errors": failure_documents(rows),
    }
    return Outcome(document, [table], failure_lines(rows), exit_status(rows))


def _cells(guest: Guest, address: Address | None, now: datetime) -> tuple[str, ...]:
    origin = guest.origin
    return (
        guest.name,
        f"{guest.state} ({guest.reason})" if _is_worth_a_word(guest) else str(guest.state),
        guest.node,
        str(guest.vcpus),
        size_text(guest.memory),
        "-" if address is None else address.address,
        "-" if origin is None else PurePosixPath(origin.image).name,
        "-" if origin is None else age_text(origin.created, now),
        "-" if origin is None else str(origin.kind),
    )


def _is_worth_a_word(guest: Guest) -> bool:
    """Whether why a guest is in its state is news: a running one was booted, of course."""
    return bool(guest.reason) and guest.reason not in {
        "booted", "unpaused", "migrated", "restored", "shutdown", "destroyed", "user",
    }  # fmt: skip


def _document(guest: Guest, address: Address | None, now: datetime) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": guest.name,
        "uuid": guest.uuid,
        "node": guest.node,
        "state": str(guest.state),
        "reason": guest.reason,
        "vcpus": guest.vcpus,
        "memory": guest.memory,
        "persistent": guest.is_persistent,
        "ip": None if address is None else address.address,
        "ip_source": None if address is None else str(address.sources[0]),
    }
    if (origin := guest.origin) is not None:
        document |= {
            "kind": str(origin.kind),
            "template": origin.template,
            "image": origin.image,
            "export": origin.export,
            "created": origin.created.isoformat(),
            "age_seconds": round((now - origin.created).total_seconds()),
            "user": origin.user,
        }
    return document
