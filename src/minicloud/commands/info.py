"""`minicloud info`: one guest in full: what it is, its disks and what serves them, its addresses.

libvirt, the address sources and the export server are asked at once. The server that does not
answer is a line among the errors; what the node said is shown all the same.
"""

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from minicloud.commands.amounts import age_text
from minicloud.commands.context import Context
from minicloud.commands.guests import add_guest, failure_document, find_guest, guest_document
from minicloud.commands.ip import address_document
from minicloud.domain.devices import Card, GuestDisk
from minicloud.domain.names import guest_of
from minicloud.errors import MinicloudError, StorageError
from minicloud.hypervisor.inside import Inside, Traffic, look_inside
from minicloud.hypervisor.sightings import look_around
from minicloud.model.address import Address
from minicloud.model.guest import Guest
from minicloud.model.sizes import size_text
from minicloud.model.view import Outcome, Table, View
from minicloud.storage.facts import ExportFacts, OverlayFacts

__all__ = ["CHANGES", "HELP", "Sight", "add_arguments", "info_outcome", "run"]

HELP: Final = "a guest in full: state, disks, exports, addresses, where it came from"
CHANGES: Final = False

_NONE: Final = "-"


@dataclass(frozen=True, slots=True)
class Sight:
    """What was found out about a guest.

    Attributes:
        guest: as it was found.
        inside: what libvirt says.
        addresses: the most trusted first.
        exports: all there are, or none where they are not known.
        overlays: likewise.
        trouble: why the export server did not tell, if it did not.
    """

    guest: Guest
    inside: Inside
    addresses: Sequence[Address] = ()
    exports: Sequence[ExportFacts] = ()
    overlays: Sequence[OverlayFacts] = ()
    trouble: StorageError | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `info` alone takes."""
    add_guest(parser)


async def run(context: Context, arguments: argparse.Namespace) -> Outcome:
    """Ask node and export server."""
    context.report.step("asking for the guest")
    guest = await find_guest(context, arguments.guest)
    hypervisor = await context.cluster.hypervisor(guest.node)

    async def addresses() -> Sequence[Address]:
        if not guest.is_active:
            return ()
        session = await context.cluster.session(guest.node)
        return (await look_around(hypervisor, session, guest.uuid)).addresses

    inside, seen, (exports, overlays, trouble) = await asyncio.gather(
        hypervisor.call(look_inside(guest.uuid)), addresses(), _storage(context, guest)
    )
    sight = Sight(guest, inside, seen, exports, overlays, trouble)
    return info_outcome(sight, datetime.now(UTC))


async def _storage(
    context: Context, guest: Guest
) -> tuple[Sequence[ExportFacts], Sequence[OverlayFacts], StorageError | None]:
    if guest.origin is None or context.storage.nbd is None:
        return (), (), None
    storage = context.storage.at(context.cluster.node(guest.node))
    exports: Sequence[ExportFacts] = ()
    try:
        exports = await storage.exports()
        return exports, await storage.overlays(), None
    except StorageError as exc:
        return exports, (), exc


def info_outcome(sight: Sight, now: datetime) -> Outcome:
    """Make what is shown; status 1 where the export server did not tell.

    Args:
        sight: what was found out.
        now: to count ages from.
    """
    guest = sight.guest
    errors: list[MinicloudError] = [] if sight.trouble is None else [sight.trouble]
    document = guest_document(guest) | _document(sight)
    return Outcome(
        {
            "guest": document,
            "errors": [failure_document(exc, guest.name, guest.node) for exc in errors],
        },
        list(_views(sight, now)),
        [f"export server: {exc}" for exc in errors],
        status=1 if errors else 0,
    )


def _views(sight: Sight, now: datetime) -> Sequence[View]:
    views: list[View] = [Table(("fact", "value"), _facts(sight, now))]
    if sight.inside.devices.disks:
        rows = [_disk_row(disk, sight) for disk in sight.inside.devices.disks]
        right = frozenset({"read", "written", "overlay"})
        views.append(Table(("disk", "source", "read", "written", "overlay", "note"), rows, right))
    if sight.inside.devices.cards:
        rows = [_card_row(card, sight) for card in sight.inside.devices.cards]
        right = frozenset({"received", "sent"})
        views.append(Table(("card", "on", "addresses", "received", "sent"), rows, right))
    return views


def _facts(sight: Sight, now: datetime) -> list[tuple[str, ...]]:
    guest, inside = sight.guest, sight.inside
    reason = f" ({inside.power.reason})" if inside.power.reason else ""
    rows = [
        ("name", guest.name),
        ("uuid", guest.uuid),
        ("node", guest.node),
        ("state", f"{inside.power.state}{reason}"),
        ("vcpus", str(guest.vcpus)),
        ("memory", _memory(guest.memory, inside.resident)),
        ("kept", _kept(sight)),
    ]
    if inside.cpu_seconds is not None:
        rows.append(("cpu time", f"{inside.cpu_seconds:.1f} s"))
    displays = [f"{one.kind} {one.host}:{one.port}" for one in inside.devices.displays if one.port]
    rows.append(("display", ", ".join(displays) or _NONE))
    agent = "connected" if inside.devices.is_agent_there else "not connected"
    rows.append(("guest agent", agent if inside.devices.has_agent else "no channel for one"))
    if guest.origin is not None:
        rows += [
            ("template", guest.origin.template),
            ("image", guest.origin.image),
            ("made", f"{age_text(guest.origin.created, now)} ago by {guest.origin.user or '?'}"),
        ]
    return list(rows)


def _memory(most: int, resident: int | None) -> str:
    return size_text(most) + (f", {size_text(resident)} resident" if resident else "")


def _kept(sight: Sight) -> str:
    guest = sight.guest
    kind = f"{guest.origin.kind}, " if guest.origin is not None else ""
    if not guest.is_persistent:
        return f"{kind}gone once it is off"
    return f"{kind}defined{', starts with its node' if sight.inside.autostart else ''}"


def _disk_row(disk: GuestDisk, sight: Sight) -> tuple[str, ...]:
    traffic = sight.inside.disks.get(disk.target)
    overlay = _overlay(disk, sight)
    notes = [
        "cdrom" if disk.device == "cdrom" else "",
        "read-only" if disk.is_read_only else "",
        sight.inside.power.faults.get(disk.target, ""),
        *_export_notes(disk, sight),
        "no reconnect: it pauses when nbdserve restarts" if disk.reconnects is False else "",
    ]
    return (
        f"{disk.target} ({disk.bus})",
        disk.source or "empty",
        *_amounts(traffic),
        _NONE if overlay is None else size_text(overlay.allocated),
        ", ".join(filter(None, notes)),
    )


def _export_notes(disk: GuestDisk, sight: Sight) -> list[str]:
    """Say what the server says of a disk's export, if anybody asked it."""
    origin = sight.guest.origin
    if origin is None or disk.export not in (origin.export, origin.seed) or not sight.exports:
        return []
    export = _export(disk, sight)
    if export is None:
        return ["NOT SERVED"]
    if export.error is not None:
        return [f"cannot be opened: {export.error}"]
    return [f"{export.connections} client{'' if export.connections == 1 else 's'}"]


def _export(disk: GuestDisk, sight: Sight) -> ExportFacts | None:
    return next((one for one in sight.exports if one.name == disk.export), None)


def _overlay(disk: GuestDisk, sight: Sight) -> OverlayFacts | None:
    """Find the overlay of a disk: that of its export, or of its guest where no export uses it."""
    if disk.export is None:
        return None
    for one in sight.overlays:
        if one.export == disk.export:
            return one
    is_main = sight.guest.origin is not None and disk.export == sight.guest.origin.export
    return next(
        (one for one in sight.overlays if is_main and guest_of(one.path) == sight.guest.name), None
    )


def _card_row(card: Card, sight: Sight) -> tuple[str, ...]:
    addresses = [
        f"{one.address} ({', '.join(one.sources)})"
        for one in sight.addresses
        if one.mac == card.mac
    ]
    traffic = sight.inside.cards.get(card.target)
    return (
        card.mac or _NONE,
        f"{card.kind}:{card.source}" if card.source else card.kind,
        ", ".join(addresses),
        *_amounts(traffic),
    )


def _amounts(traffic: Traffic | None) -> tuple[str, str]:
    if traffic is None:
        return _NONE, _NONE
    return size_text(traffic.ins), size_text(traffic.outs)


def _document(sight: Sight) -> dict[str, Any]:
    guest, inside = sight.guest, sight.inside
    document: dict[str, Any] = {
        "state": str(inside.power.state),
        "reason": inside.power.reason,
        "vcpus": guest.vcpus,
        "memory": guest.memory,
        "resident": inside.resident,
        "cpu_seconds": inside.cpu_seconds,
        "persistent": guest.is_persistent,
        "autostart": inside.autostart,
        "agent": inside.devices.is_agent_there,
        "displays": [
            {"kind": one.kind, "host": one.host, "port": one.port, "tls_port": one.tls_port}
            for one in inside.devices.displays
        ],
        "disks": [_disk_document(disk, sight) for disk in inside.devices.disks],
        "cards": [_card_document(card, sight) for card in inside.devices.cards],
        "addresses": [address_document(one) for one in sight.addresses],
        "origin": None,
    }
    if (origin := guest.origin) is not None:
        document["origin"] = {
            "kind": str(origin.kind), "template": origin.template, "image": origin.image,
            "export": origin.export, "seed": origin.seed, "user": origin.user,
            "created": origin.created.isoformat(),
        }  # fmt: skip
    return document


def _disk_document(disk: GuestDisk, sight: Sight) -> dict[str, Any]:
    export, overlay = _export(disk, sight), _overlay(disk, sight)
    return {
        "target": disk.target,
        "bus": disk.bus,
        "device": disk.device,
        "source": disk.source,
        "export": disk.export,
        "read_only": disk.is_read_only,
        "reconnects": disk.reconnects,
        "fault": sight.inside.power.faults.get(disk.target),
        **_traffic_document(sight.inside.disks.get(disk.target), "read", "written"),
        "served": None if export is None else export.error is None,
        "clients": None if export is None else export.connections,
        "overlay_bytes": None if overlay is None else overlay.allocated,
    }


def _card_document(card: Card, sight: Sight) -> dict[str, Any]:
    return {
        "mac": card.mac, "model": card.model, "kind": card.kind, "source": card.source,
        "target": card.target or None,
        **_traffic_document(sight.inside.cards.get(card.target), "received", "sent"),
    }  # fmt: skip


def _traffic_document(traffic: Traffic | None, ins: str, outs: str) -> dict[str, Any]:
    if traffic is None:
        return {f"{ins}_bytes": None, f"{outs}_bytes": None}
    return {
        f"{ins}_bytes": traffic.ins, f"{outs}_bytes": traffic.outs,
        f"{ins}_requests": traffic.in_requests, f"{outs}_requests": traffic.out_requests,
    }  # fmt: skip
