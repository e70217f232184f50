"""Both ends of a move, asked before anything moves; `minicloud.moving.checks` judges them."""

import asyncio
from dataclasses import dataclass

from minicloud.commands.context import Context
from minicloud.errors import NodeError, Reason
from minicloud.hypervisor.ends import Leaving, ask_target, read_leaving
from minicloud.model.guest import Guest
from minicloud.model.inventory import Node
from minicloud.moving.checks import Source, Target, check_leaving, check_migration
from minicloud.moving.definition import Definition, parse_definition
from minicloud.moving.finding import Finding
from minicloud.moving.probe import (
    MIGRATION_PORT,
    Probe,
    Reach,
    address_of,
    parse_probe,
    probe_command,
)

__all__ = ["Leaver", "Prospect", "leaver", "prospect", "target_end"]

_PROBING = 20.0  # seconds; each address that does not answer takes 3


@dataclass(frozen=True, slots=True)
class Leaver:
    """A guest that is to leave its node.

    Attributes:
        guest: it.
        definition: as it is now.
        leaving: what its node says of it.
        findings: what keeps it there, wherever it is to go.
    """

    guest: Guest
    definition: Definition
    leaving: Leaving
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Prospect:
    """A guest and a node it might go to.

    Attributes:
        leaver: the guest.
        target: the node.
        findings: all that was checked, of both ends.
    """

    leaver: Leaver
    target: Node
    findings: tuple[Finding, ...]


async def leaver(context: Context, guest: Guest) -> Leaver:
    """Ask a guest's node about it.

    Raises:
        NodeError: the node does not say.
    """
    hypervisor = await context.cluster.hypervisor(guest.node)
    leaving = await hypervisor.call(lambda connection: read_leaving(connection, guest.uuid))
    definition = _definition(leaving.xml)
    source = await _source(context, guest, definition, Reach.UNKNOWN)
    return Leaver(guest, definition, leaving, check_leaving(source))


async def prospect(context: Context, leaver: Leaver, target: Node) -> Prospect:
    """Ask both ends whether the guest can go there.

    Raises:
        NodeError: one of them does not say.
    """
    guest, definition = leaver.guest, leaver.definition
    port, end = await asyncio.gather(
        _port(context, guest, address_of(target)),
        target_end(context, definition, target, leaver.leaving.host_cpu),
    )
    source = await _source(context, guest, definition, port)
    return Prospect(leaver, target, check_migration(source, end))


async def target_end(
    context: Context, definition: Definition, node: Node, host_cpu: str = ""
) -> Target:
    """Ask a node what a guest would find there.

    Args:
        context: of the run.
        definition: the guest's.
        node: it.
        host_cpu: the processor of the guest's own node, as XML, if that is known.

    Raises:
        NodeError: it does not say.
    """
    hypervisor = await context.cluster.hypervisor(node.name)
    facts, answers, probe = await asyncio.gather(
        context.cluster.facts(node.name),
        hypervisor.call(lambda connection: ask_target(connection, definition, host_cpu)),
        _probe(context, definition, node),
    )
    return Target(
        node=node.name,
        address=address_of(node),
        libvirt=facts.libvirt,
        qemu=facts.qemu,
        guests={guest.name: guest.uuid for guest in facts.guests},
        active=frozenset(guest.name for guest in facts.guests if guest.is_active),
        free=facts.memory_free(node.reserve),
        machine_error=answers.machine_error,
        cpu_error=answers.cpu_error,
        networks=answers.networks,
        probe=probe,
    )


def _definition(xml: str) -> Definition:
    try:
        return parse_definition(xml)
    except ValueError as exc:
        raise NodeError(Reason.LIBVIRT, f"libvirt gave {exc}") from exc


async def _source(context: Context, guest: Guest, definition: Definition, port: Reach) -> Source:
    facts = await context.cluster.facts(guest.node)
    return Source(
        node=guest.node,
        definition=definition,
        state=guest.state,
        reason=guest.reason,
        is_active=guest.is_active,
        is_persistent=guest.is_persistent,
        libvirt=facts.libvirt,
        qemu=facts.qemu,
        port=port,
    )


async def _port(context: Context, guest: Guest, address: str) -> Reach:
    """Try the way the guest's memory would go."""
    if not guest.is_active:
        return Reach.UNKNOWN
    session = await context.cluster.session(guest.node)
    way = (address, MIGRATION_PORT)
    done = await session.run(probe_command([way]), deadline=_PROBING)
    return parse_probe(done.stdout.decode(errors="replace")).addresses.get(way, Reach.UNKNOWN)


async def _probe(context: Context, definition: Definition, node: Node) -> Probe:
    session = await context.cluster.session(node.name)
    command = probe_command(definition.servers, definition.bridges, definition.files)
    done = await session.run(command, deadline=_PROBING)
    return parse_probe(done.stdout.decode(errors="replace"))
