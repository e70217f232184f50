"""`minicloud destroy`: cut a guest's power and remove what was its own.

Pets, and guests that minicloud did not make, ask first. It can be run again wherever it was
interrupted: what is gone already is no error, and a guest that ended by itself still has its disk
removed. Where no node has the guest and one cannot be asked, nothing is touched.

Invariant: a disk that somebody uses is never removed. A node that was dead may still define a guest
that was recovered elsewhere; its disk is the other one's.
"""

import argparse
import asyncio
import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from minicloud.booting.launch import REMOVING, withdraw
from minicloud.booting.undo import unbroken
from minicloud.collecting import Remains, remains_of
from minicloud.commands.context import Context
from minicloud.commands.guests import failure_document
from minicloud.domain.metadata import read_origin
from minicloud.domain.names import guest_export_name, guest_of, split_target
from minicloud.errors import MinicloudError, NodeError, StorageError, UsageError
from minicloud.hypervisor.domains import remove
from minicloud.model.guest import Guest, GuestKind, NodeFacts
from minicloud.model.outcome import Row
from minicloud.model.sizes import size_text
from minicloud.model.view import Lines, Outcome
from minicloud.moving.record import records
from minicloud.storage.service import Storage
from nbdserve.params import closest

__all__ = ["CHANGES", "HELP", "add_arguments", "clear", "doubt_of", "run", "sharer_of"]

HELP: Final = "force guests off and remove what was their own"
CHANGES: Final = True

_LETTING_GO: Final = 5.0  # seconds for nbdserve to notice that a guest's qemu has ended
_LOOK: Final = 0.1  # seconds between looks whether it has


@dataclass(frozen=True, slots=True)
class _Doomed:
    """A guest that is to go.

    Attributes:
        name: as it was asked for, without a node.
        guest: of a node, or None where only its exports are left.
        storage: serves its disk; None where nothing of it is there.
        remains: what is served and kept of it.
        sharer: another guest that has the same disk, `NODE:NAME`, or "".
        doubt: why it is asked before what is left of a guest no node has is removed, or "".
    """

    name: str
    guest: Guest | None
    storage: Storage | None
    remains: Remains | None
    sharer: str = ""
    doubt: str = ""

    @property
    def is_foreign(self) -> bool:
        """Whether minicloud did not make it, and has nothing of it to remove."""
        return self.guest is not None and self.guest.origin is None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `destroy` alone takes."""
    parser.add_argument("guests", nargs="+", metavar="[NODE:]GUEST")
    parser.add_argument(
        "--keep-disk", action="store_true", help="leave its disk's export and what it wrote"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask, even for a pet")


async def run(context: Context, arguments: argparse.Namespace) -> Outcome:
    """Find the guests, then remove one after the other; a failure keeps none of the others."""
    rows = await _facts(context)
    lines: list[str] = []
    done: list[dict[str, Any]] = []
    failures: list[tuple[str, MinicloudError]] = []
    for asked in dict.fromkeys(arguments.guests):
        try:
            doomed = await _find(context, asked, rows)
            text = await _destroy(context, doomed, arguments)
        except MinicloudError as exc:
            failures.append((asked, exc))
            continue
        lines.append(f"{asked}: {text}")
        node = None if doomed.guest is None else doomed.guest.node
        done.append({"name": doomed.name, "node": node, "message": text})
    document = {
        "guests": done,
        "errors": [failure_document(exc, asked) for asked, exc in failures],
    }
    status = 0 if not failures else 1 if done else 2
    errors = [f"{asked}: {exc}" for asked, exc in failures]
    return Outcome(document, [Lines(tuple(lines))], errors, status)


async def _facts(context: Context) -> list[Row[NodeFacts]]:
    """Ask all nodes: one that --node leaves out may have a guest on the same disk."""
    context.report.step("asking the nodes")
    cluster = context.cluster
    return await cluster.gather(lambda node: cluster.facts(node.name), cluster.nodes())


async def _find(context: Context, asked: str, rows: Sequence[Row[NodeFacts]]) -> _Doomed:
    """Find a guest, or what is left of one.

    Raises:
        UsageError: there is none, or several.
        NodeError: it may be on a node that cannot be asked.
    """
    node, name = _split(asked, context)
    asked_rows = [
        row
        for row in rows
        if node in (None, row.node) and (not context.only or row.node in context.only)
    ]
    found = [
        guest
        for row in asked_rows
        if row.value is not None
        for guest in row.value.guests
        if guest.name == name
    ]
    if len(found) > 1:
        places = ", ".join(f"{one.node}:{one.name}" for one in found)
        raise UsageError(f"it is on several nodes; say which: {places}")
    if found:
        return await _of_guest(context, found[0], rows)
    silent = next((row for row in asked_rows if row.error is not None), None)
    if silent is not None and silent.error is not None:
        raise NodeError(
            silent.error.reason,
            f"it is on no node that answers, and may be on {silent.node}: {silent.error.message}",
            f"switch {silent.node} on, or take it out of the inventory",
        )
    if context.only or node is not None:
        raise UsageError(f"it is not on {node or ', '.join(context.only)}")
    return await _of_exports(context, name, rows)


def _split(asked: str, context: Context) -> tuple[str | None, str]:
    """Part node and name; a guest of others may be called what ours may not."""
    node, colon, name = asked.partition(":")
    if colon and node in context.inventory.nodes:
        return node, name
    if guest_of(guest_export_name(asked)) is None and not colon:
        return None, asked
    return split_target(asked, context.inventory.nodes)


async def _of_guest(context: Context, guest: Guest, rows: Sequence[Row[NodeFacts]]) -> _Doomed:
    if guest.origin is None or context.storage.nbd is None:
        return _Doomed(guest.name, guest, None, None)
    if not context.storage.is_per_node and (sharer := sharer_of(guest, rows)):
        return _Doomed(guest.name, guest, None, None, sharer)
    storage = context.storage.at(context.cluster.node(guest.node))
    name = guest_of(guest.origin.export) or guest.name
    remains = remains_of(name, await storage.exports(), await storage.overlays())
    return _Doomed(guest.name, guest, storage, remains)


def sharer_of(guest: Guest, rows: Sequence[Row[NodeFacts]]) -> str:
    """Name another guest, `NODE:NAME`, that was made on the same export; "" if there is none."""
    assert guest.origin is not None
    for row in rows:
        for one in () if row.value is None else row.value.guests:
            is_other = (one.node, one.uuid) != (guest.node, guest.uuid)
            if is_other and one.origin is not None and one.origin.export == guest.origin.export:
                return f"{one.node}:{one.name}"
    return ""


async def _of_exports(context: Context, name: str, rows: Sequence[Row[NodeFacts]]) -> _Doomed:
    """Find what is left of a guest that no node has."""
    if context.storage.nbd is not None:
        servers = [context.storage]
        if context.storage.is_per_node:
            servers = [context.storage.at(node) for node in context.cluster.nodes(context.only)]
        for storage in servers:
            exports = await storage.exports()
            remains = remains_of(name, exports, await storage.overlays())
            if remains.exports or remains.overlay:
                descriptions = {one.name: one.description for one in exports}
                doubt = doubt_of(name, descriptions, context.inventory.nodes)
                return _Doomed(name, None, storage, remains, doubt=doubt)
    known = [guest.name for row in rows if row.value is not None for guest in row.value.guests]
    raise UsageError(f"no node has it, and nothing of it is left; {closest(name, known)}")


def doubt_of(name: str, descriptions: Mapping[str, str], nodes: Collection[str]) -> str:
    """Say why what is left of a guest may not be for removal, or "".

    Args:
        name: of the guest.
        descriptions: of all exports, by name.
        nodes: of the inventory.
    """
    record = records(descriptions).get(name)
    if record is None:
        return ""
    if record.node not in nodes:
        return f"was put on {record.node}, which is not in the inventory"
    origin = read_origin(record.xml)
    return "was a pet" if origin is not None and origin.kind is GuestKind.PET else ""


async def _destroy(context: Context, doomed: _Doomed, arguments: argparse.Namespace) -> str:
    """Remove it; return what was done, or would be."""
    told = _told(doomed, keep_disk=arguments.keep_disk)
    if context.dry_run:
        kept = f"; its disk would stay, for {doomed.sharer} has it too" if doomed.sharer else ""
        return f"would be removed: {told}{kept}"
    question = "" if arguments.yes else _question(doomed, keep_disk=arguments.keep_disk)
    if question and not await context.ask(question):
        raise UsageError("it was left alone; nobody said yes (--yes does not ask)")
    context.report.step(f"removing {doomed.name}")
    if (guest := doomed.guest) is not None:
        await _cut_power(context, guest, is_ours=not doomed.is_foreign)
    if doomed.storage is not None and doomed.remains is not None:
        await clear(doomed.storage, doomed.remains, keep_disk=arguments.keep_disk)
    kept = f"; its disk stays, for {doomed.sharer} has it too" if doomed.sharer else ""
    return f"removed: {told}{kept}" if told else "it is off"


async def _cut_power(context: Context, guest: Guest, *, is_ours: bool) -> None:
    hypervisor = await context.cluster.hypervisor(guest.node)
    work = functools.partial(remove, uuid=guest.uuid, is_forgotten=is_ours)
    await unbroken(hypervisor.call(work, deadline=REMOVING))


async def clear(
    storage: Storage, remains: Remains, *, keep_disk: bool, patience: float = _LETTING_GO
) -> None:
    """Remove its exports, the disk last: as long as that is there the rest can be found again.

    Args:
        storage: serves them.
        remains: what is served and kept.
        keep_disk: leave the disk.
        patience: seconds to wait for its last client to leave.

    Raises:
        StorageError: `busy` where somebody uses them; then they are all there.
    """
    await _let_go(storage, remains, patience)
    disk = guest_export_name(remains.guest)
    for name in (one for one in remains.exports if one != disk):
        await withdraw(storage, name, force=False)
    if keep_disk:
        return
    if disk in remains.exports:
        await withdraw(storage, disk, overlay=remains.overlay, force=False)
    elif remains.overlay is not None:
        await storage.delete_overlay(remains.overlay)


async def _let_go(storage: Storage, remains: Remains, patience: float) -> None:
    """Wait until nobody uses the exports."""
    loop = asyncio.get_running_loop()
    end = loop.time() + patience
    while True:
        exports = [one for one in await storage.exports() if one.name in remains.exports]
        used = [one.name for one in exports if one.connections]
        if not used:
            return
        if loop.time() >= end:
            raise StorageError(
                "busy",
                f"{', '.join(used)} has clients, so the guest may run on another machine, and its "
                "disk is left alone; see who it is: nbdctl status",
            )
        await asyncio.sleep(_LOOK)


def _told(doomed: _Doomed, *, keep_disk: bool) -> str:
    """List what goes."""
    things = []
    if doomed.guest is not None:
        things.append(f"the domain on {doomed.guest.node}" if not doomed.is_foreign else "")
    if (remains := doomed.remains) is not None:
        disk = guest_export_name(remains.guest)
        things += [one for one in remains.exports if not (keep_disk and one == disk)]
        if remains.overlay is not None and not keep_disk:
            things.append(f"{size_text(remains.size)} in {remains.overlay}")
    return ", ".join(filter(None, things))


def _question(doomed: _Doomed, *, keep_disk: bool) -> str:
    """Return what has to be asked first, or ""."""
    guest = doomed.guest
    if guest is None:
        what = "seed and record" if keep_disk else "disk"
        return f"{doomed.name} {doomed.doubt}. Remove its {what}?" if doomed.doubt else ""
    if guest.origin is None:
        return (
            f"{guest.name} on {guest.node} was not made by minicloud. Cut its power? (It stays "
            "defined if it is, and keeps its disks.)"
        )
    if guest.origin.kind is not GuestKind.PET:
        return ""
    what = "its disk is kept" if keep_disk or doomed.sharer else "and delete its disk"
    return f"{guest.name} on {guest.node} is a pet. Remove it, {what}?"
