"""What is left of a node that died: the records, clients and neighbours of its guests, gathered."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from minicloud.commands.context import Context
from minicloud.domain.names import GUEST_PREFIX
from minicloud.model.guest import NodeFacts
from minicloud.model.inventory import Node
from minicloud.model.outcome import Row
from minicloud.moving.record import records
from minicloud.moving.recovery import Evidence
from minicloud.resolving import addresses_of

__all__ = ["clients_by_guest", "gather_evidence"]

_RESOLVING: Final = 2.0  # seconds for the names of all nodes


async def gather_evidence(context: Context, rows: Sequence[Row[NodeFacts]]) -> Evidence:
    """Gather it.

    Args:
        context: of the run.
        rows: what the other nodes said.

    Raises:
        StorageError: the export server does not answer; then nothing can be known.
    """
    exports, status, addresses = await asyncio.gather(
        context.storage.exports(),
        context.storage.status(),
        _addresses(context.inventory.nodes.values()),
    )
    names = [one.name for one in exports if one.name.startswith(GUEST_PREFIX)]
    return Evidence(
        guests=[name.removeprefix(GUEST_PREFIX) for name in names],
        records=records({one.name: one.description for one in exports}),
        clients=clients_by_guest(status),
        running={
            guest.name: row.node
            for row in rows
            if row.value is not None
            for guest in row.value.guests
            if guest.is_active
        },
        addresses=addresses,
        silent=[row.node for row in rows if row.value is None],
    )


def clients_by_guest(status: Mapping[str, Any]) -> Mapping[str, frozenset[str]]:
    """Read who holds guests' disks out of nbdserve's status; a Unix socket has no address."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for client in status.get("clients", ()):
        export, peer = str(client.get("export")), str(client.get("peer"))
        host, colon, _ = peer.rpartition(":")
        if export.startswith(GUEST_PREFIX) and colon and host != "unix":
            found[export.removeprefix(GUEST_PREFIX)].add(host.strip("[]"))
    return {guest: frozenset(hosts) for guest, hosts in found.items()}


async def _addresses(nodes: Iterable[Node]) -> Mapping[str, str]:
    """Look up all nodes' addresses; a name that does not resolve tells nothing."""

    async def look_up(node: Node, host: str) -> list[tuple[str, str]]:
        return [(one, node.name) for one in await addresses_of(host, seconds=_RESOLVING)]

    hosts = [(node, host) for node in nodes for host in {node.host, node.migrate_host or node.host}]
    pairs = await asyncio.gather(*(look_up(node, host) for node, host in hosts))
    return {address: name for some in pairs for address, name in some}
