"""`minicloud customize`: virt-customize over a guest's export, while nobody else uses it.

A disk is changed only if nothing can be running on it: the guest is off by what its node says, and
no client is connected by what nbdserve says. An exclusive export, as `boot` makes them, then lets
nobody in until it is done.
"""

import argparse
import time
from dataclasses import dataclass
from typing import Any, Final

from minicloud.commands.context import Context
from minicloud.commands.customize_options import add_arguments
from minicloud.commands.guests import find_guest, titled
from minicloud.customization.options import read_commands, registers, unregisters
from minicloud.customization.prepared import Applied, Prepared, prepare
from minicloud.customization.tool import Appliance
from minicloud.domain.names import guest_export_name, guest_of
from minicloud.domain.plan import server_of
from minicloud.errors import NodeError, Reason, StorageError, UsageError
from minicloud.model.guest import Guest, GuestKind
from minicloud.model.inventory import Node
from minicloud.model.view import Lines, Outcome
from minicloud.storage.facts import ExportFacts
from minicloud.storage.service import Storage

__all__ = ["CHANGES", "HELP", "NEEDS_NODES", "add_arguments", "check_off", "run"]

HELP: Final = "change a guest's disk before its start, by virt-customize"
CHANGES: Final = True
NEEDS_NODES: Final = False  # an export is customised here


@dataclass(frozen=True, slots=True)
class _Target:
    """A disk that may be changed now.

    Attributes:
        name: as it was asked for.
        export: of it.
        node: whose nbdserve serves it, where each node has one.
        guest: whose it is, where a node has it.
    """

    name: str
    export: str
    node: Node | None
    guest: Guest | None


async def run(context: Context, arguments: argparse.Namespace) -> Outcome:
    """Carry it out."""
    if not arguments.options:
        raise UsageError("nothing is to be done; say what, e.g. --install nginx or --run SCRIPT")
    commands = read_commands(arguments.options, may_be_seen=arguments.allow_insecure_secret)
    appliance = Appliance(not arguments.no_network, arguments.memsize, arguments.smp)
    context.report.step(f"looking for {arguments.target}")
    target = await _find(context, arguments.target)
    context.report.step("looking for virt-customize")
    assert context.storage.nbd is not None, "it has told its exports"
    if target.node is not None:
        nodes: list[Node] | None = [target.node]
    else:
        nodes = context.cluster.nodes(context.only) if context.only else None
    server = server_of(context.storage.nbd)
    prepared = await prepare(context.cluster, commands, appliance, server, nodes=nodes)
    if context.dry_run:
        return _planned(target, prepared)
    begun = time.monotonic()
    applied = await prepared.apply(
        target.export, lambda text: context.report.step(f"{target.name}: {text}")
    )
    stays = registers(commands) and not unregisters(commands)
    return _outcome(target, applied, seconds=time.monotonic() - begun, stays_registered=stays)


async def _find(context: Context, text: str) -> _Target:
    """Find the disk, and be sure that nobody uses it.

    Raises:
        UsageError: there is none, or its guest runs.
        NodeError: its guest may run on a node that does not say so.
        StorageError: somebody uses it, or it is not served.
    """
    if "/" not in text:
        try:
            return await _of_guest(context, await find_guest(context, text))
        except UsageError:
            name = await _export_like(context, text)
            if name is None:
                raise
            text = name
    node = _node_of_exports(context)
    await _check_guest_is_off(context, text)
    _check_free(text, await _storage(context, node).exports())
    return _Target(text, text, node, None)


async def _of_guest(context: Context, guest: Guest) -> _Target:
    if guest.origin is None:
        raise UsageError(
            f"{titled(guest)} was not made by minicloud, which knows no export of it; name the "
            "export, or use virt-customize -d there"
        )
    check_off(guest)
    node = context.cluster.node(guest.node) if context.storage.is_per_node else None
    _check_free(guest.origin.export, await _storage(context, node).exports())
    return _Target(guest.name, guest.origin.export, node, guest)


async def _export_like(context: Context, text: str) -> str | None:
    """Find an export that is called like this, or that is the disk of a guest called like this."""
    if context.storage.nbd is None or (context.storage.is_per_node and len(context.only) != 1):
        return None
    exports = await _storage(context, _node_of_exports(context)).exports()
    names = {export.name for export in exports}
    return next((name for name in (text, guest_export_name(text)) if name in names), None)


def _node_of_exports(context: Context) -> Node | None:
    if not context.storage.is_per_node:
        return None
    if len(context.only) != 1:
        raise UsageError("each node has exports of its own; say which by --node NODE")
    return context.cluster.node(context.only[0])


def _storage(context: Context, node: Node | None) -> Storage:
    return context.storage if node is None else context.storage.at(node)


async def _check_guest_is_off(context: Context, export: str) -> None:
    """Ask all nodes whether the guest of an export runs: it may just not be connected."""
    if guest_of(export) is None:
        return
    rows = await context.cluster.gather(
        lambda node: context.cluster.facts(node.name), context.cluster.nodes()
    )
    for row in rows:
        for guest in () if row.value is None else row.value.guests:
            if guest.origin is not None and guest.origin.export == export:
                check_off(guest)
        if row.error is not None and row.error.reason is not Reason.OFF:
            raise NodeError(
                row.error.reason,
                f"{row.node} may be running the guest of {export}, and does not say: "
                f"{row.error.message}",
                f"make {row.node} answer, or switch it off",
            )


def check_off(guest: Guest) -> None:
    """Raise UsageError if a guest has its disk."""
    if not guest.is_active:
        return
    remedy = f"minicloud stop {guest.name} first"
    if guest.origin is not None and guest.origin.kind is GuestKind.CATTLE:
        remedy = "cattle is changed before its first start: `customize` in its template"
    raise UsageError(
        f"{titled(guest)} is {guest.state}; two at once would destroy its disk; {remedy}"
    )


def _check_free(name: str, exports: list[ExportFacts]) -> None:
    export = next((one for one in exports if one.name == name), None)
    if export is None:
        raise StorageError("unknown-export", f"export {name} is not served; see nbdctl export list")
    if export.error is not None:
        raise StorageError("device", f"export {name} cannot be opened: {export.error}")
    if export.connections:
        raise StorageError(
            "busy",
            f"export {name} is in use by {export.connections} client(s); two at once would destroy "
            "it: end them first, see nbdctl status",
        )


def _planned(target: _Target, prepared: Prepared) -> Outcome:
    """Show what would be done; secrets are in none of it."""
    made, argv = prepared.bundle(), prepared.argv(target.export)
    document = _document(target, prepared.place.name) | {
        "dry_run": True,
        "argv": argv,
        "commands": made.text.splitlines(),
        "errors": [],
    }
    lines = [
        f"{target.name} would be customised on {prepared.place.name}: {' '.join(argv)}",
        *(f"  {line}" for line in made.text.splitlines()),
    ]
    return Outcome(document, [Lines(tuple(lines))])


def _outcome(
    target: _Target, applied: Applied, *, seconds: float, stays_registered: bool
) -> Outcome:
    failure = applied.failure
    document = _document(target, applied.place) | {
        "seconds": round(seconds, 3),
        "status": applied.ran.status,
        "output": list(applied.output),
    }
    if failure is not None:
        error = {
            "guest": target.name, "node": applied.place, "reason": str(failure.reason),
            "message": failure.message, "remedy": failure.remedy,
        }  # fmt: skip
        document |= {"stderr": list(applied.ran.errors), "errors": [error]}
        lines = [*(f"  {line}" for line in applied.ran.errors), f"{target.name}: {failure}"]
        return Outcome(document, (), lines, status=2)
    told = [f"{target.name}: {line}" for line in applied.output]
    if stays_registered:
        told.append(f"{target.name}: it stays registered; --sm-unregister gives that back")
    told.append(f"{target.name}: customised on {applied.place} in {seconds:.0f} s")
    return Outcome(document | {"errors": []}, [Lines(tuple(told))])


def _document(target: _Target, place: str) -> dict[str, Any]:
    guest = target.guest
    return {
        "target": target.name,
        "export": target.export,
        "guest": None if guest is None else guest.name,
        "node": None if guest is None else guest.node,
        "place": place,
    }
