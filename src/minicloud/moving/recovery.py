"""Which guests a dead node had, by what is left: their records, and the clients of their disks.

A guest is the dead node's if a client at that node's address holds its disk, which is what a power
cut leaves behind, or if its record names the node and nobody holds it. It is left alone if it runs
on a node that answers, or if another node's address holds its disk: then that one has it, whatever
the record says; and if the address is nobody's that is known while another node is silent too.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from minicloud.domain.metadata import read_origin
from minicloud.model.guest import GuestKind
from minicloud.moving.record import Record

__all__ = ["Evidence", "Lost", "Unclear", "what_was_lost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What can be known without the dead node.

    Attributes:
        guests: names of all guests that have a disk on the export server.
        records: by guest.
        clients: addresses of the clients of each guest's disk.
        running: node by guest, for those active on nodes that answer.
        addresses: names of the nodes by address, of all nodes in the inventory.
        silent: other nodes that do not answer.
    """

    guests: Collection[str]
    records: Mapping[str, Record]
    clients: Mapping[str, Collection[str]] = field(default_factory=dict)
    running: Mapping[str, str] = field(default_factory=dict)
    addresses: Mapping[str, str] = field(default_factory=dict)
    silent: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Lost:
    """A guest the dead node had.

    Attributes:
        guest: its name.
        record: to start it by.
        note: what is not certain, or "".
    """

    guest: str
    record: Record
    note: str = ""


@dataclass(frozen=True, slots=True)
class Unclear:
    """A guest that may have been the dead node's, and is left alone.

    Attributes:
        guest: its name.
        why: what speaks against it.
    """

    guest: str
    why: str


def what_was_lost(node: str, evidence: Evidence) -> tuple[tuple[Lost, ...], tuple[Unclear, ...]]:
    """Tell which guests to start elsewhere, and which to leave alone and mention."""
    lost: list[Lost] = []
    unclear: list[Unclear] = []
    for guest in sorted(set(evidence.guests) - set(evidence.running)):
        match _judge(node, guest, evidence):
            case Lost() as one:
                lost.append(one)
            case Unclear() as one:
                unclear.append(one)
    return tuple(lost), tuple(unclear)


def _judge(node: str, guest: str, evidence: Evidence) -> Lost | Unclear | None:
    clients = evidence.clients.get(guest, ())
    holders = {evidence.addresses.get(address) for address in clients}
    record = evidence.records.get(guest)
    others = sorted(name for name in holders if name is not None and name != node)
    is_ours = node in holders or (record is not None and record.node == node)
    if others:
        return Unclear(guest, f"its disk is in use from {others[0]}") if is_ours else None
    if record is None:
        why = f"its definition was not kept (no export domain/{guest}); define it by hand"
        return Unclear(guest, why) if is_ours or not clients else None
    if not is_ours:
        return _elsewhere(guest, record, evidence)
    is_held_from_nowhere_known = bool(clients) and node not in holders
    if is_held_from_nowhere_known and evidence.silent:
        where, whose = ", ".join(sorted(clients)), " or ".join(evidence.silent)
        why = (
            f"its disk is in use from {where}, which may be {whose}; if that is dead too, nbdserve "
            "drops its clients within 30 s: try again then"
        )
        return Unclear(guest, why)
    note = ""
    if not clients and not _is_pet(record):
        note = "nothing held its disk any more; it may have ended before its node did"
    elif is_held_from_nowhere_known:
        note = f"its disk was held from {', '.join(sorted(clients))}"
    return Lost(guest, record, note)


def _is_pet(record: Record) -> bool:
    """Whether it would have been started with its node anyway."""
    origin = read_origin(record.xml)
    return origin is not None and origin.kind is GuestKind.PET


def _elsewhere(guest: str, record: Record, evidence: Evidence) -> Unclear | None:
    """Mention guests of other nodes only where those do not answer either."""
    if record.node in evidence.silent:
        return Unclear(guest, f"it was on {record.node}, which does not answer either")
    return None
