"""`minicloud recover`: starts the guests of a node that died on the others.

Their disks are on the export server, and so are their definitions. The dead node's clients are
dropped there before a guest starts elsewhere; a node that was not dead after all then finds its
disks taken, and cannot write to them any more.
"""

import argparse
import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from minicloud.commands.context import Context
from minicloud.commands.ends import target_end
from minicloud.commands.evidence import gather_evidence
from minicloud.commands.failures import failure_documents, failure_lines
from minicloud.commands.fencing import add_fencing, fence
from minicloud.commands.places import find_place
from minicloud.commands.presence import absence
from minicloud.commands.records import write_record
from minicloud.domain.metadata import read_origin
from minicloud.domain.names import guest_export_name
from minicloud.errors import MinicloudError, StorageError, UsageError
from minicloud.hypervisor.revival import revive
from minicloud.model.guest import GuestKind, NodeFacts
from minicloud.model.inventory import Node
from minicloud.model.outcome import Row
from minicloud.model.view import Lines, Outcome, Table, View
from minicloud.moving.capacity import Load, plan_places
from minicloud.moving.checks import check_target, check_ties
from minicloud.moving.definition import Definition, parse_definition
from minicloud.moving.finding import Finding
from minicloud.moving.record import Record
from minicloud.moving.recovery import Lost, Unclear, what_was_lost

__all__ = ["CHANGES", "HELP", "add_arguments", "run"]

HELP: Final = "start the guests of a node that died on the others"
CHANGES: Final = True

_STARTING: Final = 60.0  # seconds; qemu opens the disk first


@dataclass(slots=True)
class _Revival:
    """A guest that is started again.

    Attributes:
        lost: it.
        definition: out of its record; None where that cannot be read.
        target: its new node, or None.
        failure: why it is not started, or "".
        note: what is to be told though it is, or "".
        is_done: it runs.
    """

    lost: Lost
    definition: Definition | None
    target: str | None = None
    failure: str = ""
    note: str = ""
    is_done: bool = False

    @property
    def name(self) -> str:
        return self.lost.guest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `recover` alone takes."""
    parser.add_argument("dead", metavar="NODE", help="the node that died")
    parser.add_argument(
        "--guest", action="append", default=[], metavar="NAME",
        help="only this guest; may be repeated",
    )  # fmt: skip
    add_fencing(parser)


async def run(context: Context, arguments: argparse.Namespace) -> Outcome:
    """Find out what the node had, have it fenced, start its guests elsewhere."""
    node = context.cluster.node(arguments.dead)
    if context.storage.is_per_node:
        raise UsageError(
            f"each node serves its own exports ([nbd] socket), so the disks of {node.name} died "
            "with it; their guests are back when it is"
        )
    context.report.step(f"looking whether {node.name} answers")
    seen = await absence(context, node.name)
    if seen is None:
        raise UsageError(
            f"{node.name} answers, so its guests may run; minicloud drain {node.name} moves them"
        )
    others = [one for one in context.cluster.nodes(context.only) if one.name != node.name]
    rows = await context.cluster.gather(
        lambda one: context.cluster.facts(one.name),
        [one for one in context.cluster.nodes() if one.name != node.name],
    )
    lost, unclear = what_was_lost(node.name, await gather_evidence(context, rows))
    if arguments.guest:
        lost = _chosen(lost, arguments.guest, node)
    revivals = [_Revival(one, _definition(one.record)) for one in lost]
    await _plan(context, revivals, rows, others)
    if revivals and not context.dry_run:
        if any(one.target is not None for one in revivals):
            await fence(context, arguments, node.name, len(revivals), seen=seen.message)
        await _start_all(context, [one for one in revivals if one.target is not None])
    return _outcome(context, node, revivals, unclear, rows)


def _chosen(lost: Sequence[Lost], names: Sequence[str], node: Node) -> tuple[Lost, ...]:
    known = {one.guest for one in lost}
    if missing := sorted(set(names) - known):
        raise UsageError(
            f"{missing[0]} is none of the guests {node.name} had; it had "
            f"{', '.join(sorted(known)) or 'none that is known'}"
        )
    return tuple(one for one in lost if one.guest in names)


def _definition(record: Record) -> Definition | None:
    try:
        return parse_definition(record.xml)
    except ValueError:
        return None


async def _plan(
    context: Context,
    revivals: Sequence[_Revival],
    rows: Sequence[Row[NodeFacts]],
    others: Sequence[Node],
) -> None:
    """Give each guest a node; the largest first, so that few are left over."""
    free = {
        row.node: row.value.memory_free(context.cluster.node(row.node).reserve)
        for row in rows
        if row.value is not None and row.node in {one.name for one in others}
    }
    loads = [
        Load(one.name, one.definition.memory) for one in revivals if one.definition is not None
    ]
    plan = plan_places(loads, free)
    lacking = {lack.guest: str(lack) for lack in plan.lacking}
    byname = {one.name: one for one in revivals}
    for one in revivals:
        if one.definition is None:
            one.failure = "its kept definition cannot be read"
        elif one.name in lacking:
            one.failure = lacking[one.name]
    for name, first in plan.places.items():
        await _place(context, byname[name], free, first)


async def _place(context: Context, one: _Revival, free: dict[str, int], first: str) -> None:
    definition = one.definition
    assert definition is not None
    if ties := check_ties(definition):
        one.failure = str(ties[0])
        return

    async def check(name: str) -> tuple[Finding, ...]:
        end = await target_end(context, definition, context.cluster.node(name))
        return check_target(definition, end)

    one.target, one.failure = await find_place(definition.memory, free, first, check)


async def _start_all(context: Context, revivals: Sequence[_Revival]) -> None:
    """Start them on all nodes at once, and one after the other on each.

    A start is a long call, and two of them on one connection would wait for one another.
    """
    started = 0

    async def on_one(some: Iterable[_Revival]) -> None:
        nonlocal started
        for one in some:
            await _start(context, one)
            started += 1
            context.report.progress(started, len(revivals), "guests")

    by_node: dict[str, list[_Revival]] = {}
    for one in revivals:
        by_node.setdefault(one.target or "", []).append(one)
    context.report.step(f"starting {len(revivals)} guests")
    async with asyncio.TaskGroup() as group:
        for some in by_node.values():
            group.create_task(on_one(some))


async def _start(context: Context, one: _Revival) -> None:
    """Take its disk from the dead node, and start it."""
    assert one.target is not None
    origin = read_origin(one.lost.record.xml)
    is_pet = origin is not None and origin.kind is GuestKind.PET
    try:
        await context.storage.disconnect(guest_export_name(one.name))
        hypervisor = await context.cluster.hypervisor(one.target)
        await hypervisor.call(
            lambda connection: revive(connection, one.lost.record.xml, is_persistent=is_pet),
            deadline=_STARTING,
        )
    except MinicloudError as exc:
        one.failure = str(exc)
        return
    one.is_done = True
    try:
        await write_record(context.storage, one.name, Record(one.target, one.lost.record.xml))
    except StorageError as exc:
        one.note = f"where it is now was not noted for another `minicloud recover`: {exc}"


def _outcome(
    context: Context,
    node: Node,
    revivals: Sequence[_Revival],
    unclear: Sequence[Unclear],
    rows: Sequence[Row[NodeFacts]],
) -> Outcome:
    failed = [one for one in revivals if one.failure]
    errors = [
        {"node": node.name, "guest": one.name, "reason": "start", "message": one.failure,
         "remedy": ""}
        for one in failed
    ]  # fmt: skip
    document = {
        "node": node.name,
        "guests": [_document(one) for one in revivals],
        "unclear": [{"guest": one.guest, "why": one.why} for one in unclear],
        "errors": [*errors, *failure_documents(rows)],
    }
    lines = [f"{one.name} was not started: {one.failure}" for one in failed]
    lines += [f"{one.guest} was left alone: {one.why}" for one in unclear]
    status = 1 if failed or unclear else 0
    if failed and len(failed) == len(revivals):
        status = 2
    return Outcome(
        document,
        _views(node, revivals, dry=context.dry_run),
        [*failure_lines(rows), *lines],
        status,
    )


def _views(node: Node, revivals: Sequence[_Revival], *, dry: bool) -> list[View]:
    if not revivals:
        return [Lines((f"{node.name} had no guests that are known",))]
    if dry:
        cells = [(one.name, one.target or "-", one.lost.note or one.failure) for one in revivals]
        return [Table(("guest", "to", "note"), cells)]
    done = [one for one in revivals if one.is_done]
    return [Lines(tuple(_line(one) for one in done))]


def _line(one: _Revival) -> str:
    notes = "; ".join(note for note in (one.lost.note, one.note) if note)
    return f"{one.name} started on {one.target}" + (f" ({notes})" if notes else "")


def _document(one: _Revival) -> Mapping[str, Any]:
    return {
        "guest": one.name, "to": one.target, "started": one.is_done,
        "note": one.lost.note or one.note,
    }  # fmt: skip
