"""What is left of guests that are gone: the difference of exports, overlays and guests. Pure.

Invariants: only exports that were added while the server ran and overlays in its folder count, and
of these only those named as minicloud names a guest's. One that a client has open, or whose name a
guest has on any node, is never left over, whoever made that guest; nor is one whose record names a
node that is not in the inventory, and so cannot be asked.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from minicloud.domain.names import guest_of
from minicloud.domain.probe import PROBE_PREFIX
from minicloud.model.guest import Guest
from minicloud.moving.record import records
from minicloud.storage.facts import ExportFacts, OverlayFacts

__all__ = ["Remains", "leftovers", "owners", "remains_of", "strangers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What one guest has left behind.

    Attributes:
        guest: its name; of a probe that was cut off, the probe's.
        exports: names of its exports.
        overlay: path of the file of its writes, or None.
        size: bytes that file takes.
        clients: of its exports, in all.
        age: seconds since the last of its exports was added; None where that is not known.
    """

    guest: str
    exports: tuple[str, ...]
    overlay: str | None
    size: int
    clients: int
    age: float | None


def owners(guests: Iterable[Guest]) -> frozenset[str]:
    """Name the guests whose things are theirs: by their own names, and by what they were made as.

    A domain that was renamed still has the exports of its first name.
    """
    found: set[str] = set()
    for guest in guests:
        found.add(guest.name)
        if guest.origin is not None and (first := guest_of(guest.origin.export)) is not None:
            found.add(first)
    return frozenset(found)


def strangers(exports: Iterable[ExportFacts], nodes: Collection[str]) -> Mapping[str, str]:
    """Name the guests whose record names a node of some other inventory, with that node.

    Args:
        exports: of one server.
        nodes: of the inventory.
    """
    found = records({one.name: one.description for one in exports})
    return {guest: record.node for guest, record in found.items() if record.node not in nodes}


def leftovers(
    exports: Sequence[ExportFacts], overlays: Sequence[OverlayFacts], owned: frozenset[str]
) -> list[Remains]:
    """List what belongs to nobody, by name.

    Args:
        exports: of one server.
        overlays: of it.
        owned: names of the guests on all nodes that use it.
    """
    names = {_owner(one) for one in exports} | {_guest(one) for one in overlays}
    found = [
        remains_of(name, exports, overlays)
        for name in sorted(name for name in names if name is not None and name not in owned)
    ]
    return [one for one in found if not one.clients and (one.exports or one.overlay)]


def remains_of(
    name: str, exports: Sequence[ExportFacts], overlays: Sequence[OverlayFacts]
) -> Remains:
    """List all that is a guest's by its name, whether it is there or not."""
    mine = [one for one in exports if _owner(one) == name]
    names = {one.name for one in mine}
    kept = [
        one
        for one in overlays
        # another export may have been made by hand over a guest's file
        if _guest(one) == name and (one.export is None or one.export in names)
    ]
    return Remains(
        guest=name,
        exports=tuple(sorted(names)),
        overlay=kept[0].path if kept else None,
        size=sum(one.allocated for one in kept),
        clients=sum(one.connections for one in mine),
        age=min((one.age for one in mine if one.age is not None), default=None),
    )


def _owner(export: ExportFacts) -> str | None:
    if not export.is_added:
        return None
    if export.name.startswith(PROBE_PREFIX):
        return export.name.removeprefix(PROBE_PREFIX)
    return guest_of(export.name)


def _guest(overlay: OverlayFacts) -> str | None:
    return guest_of(overlay.path)
