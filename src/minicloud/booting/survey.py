"""Whether a guest can be made, and where: what the nodes and the export server say before it is.

A guest's name is unique in the cluster, since its exports, its overlay and its address follow from
it. All nodes are asked; one that is off cannot say, so the exports, which outlive a node, are asked
too: a guest that minicloud made there still has its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from minicloud.booting.request import Request
from minicloud.domain.names import guest_export_name, guest_of
from minicloud.errors import UsageError
from minicloud.model.guest import NodeFacts
from minicloud.model.inventory import Node
from minicloud.model.outcome import Row
from minicloud.model.sizes import size_text
from minicloud.placement import Candidate, Needs, Placement, place
from minicloud.storage.facts import ExportFacts, OverlayFacts

__all__ = ["Survey", "check_free", "check_room", "choose", "survey_of"]


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found.

    Attributes:
        placement: of the guest.
        unknown: a line for each node that could not say whether it has a guest of that name.
    """

    placement: Placement
    unknown: tuple[str, ...]


def survey_of(request: Request, rows: Sequence[Row[NodeFacts]], nodes: Sequence[Node]) -> Survey:
    """Judge what the nodes said.

    Args:
        request: for a guest.
        rows: of all nodes of the inventory.
        nodes: it may go to, of these.

    Raises:
        UsageError: there is a guest of that name.
    """
    name = request.name
    for row in rows:
        if row.value is not None and any(guest.name == name for guest in row.value.guests):
            raise UsageError(
                f"there is a guest {name} on {row.node} already; choose another name, or remove "
                f"that one: minicloud destroy {name}"
            )
    by_name = {row.node: row for row in rows}
    candidates = [
        Candidate(node, by_name[node.name].value, _silence(by_name[node.name])) for node in nodes
    ]
    needs = Needs(memory=request.memory, vcpus=request.vcpus, tags=request.tags)
    unknown = tuple(
        f"{row.node}: {row.error.message}; whether a guest {name} is there is not known"
        for row in rows
        if row.error is not None
    )
    return Survey(place(candidates, needs), unknown)


def _silence(row: Row[NodeFacts]) -> str:
    return "" if row.error is None else row.error.message


def choose(placement: Placement) -> Node:
    """Return the node a guest goes to.

    Raises:
        UsageError: there is none.
    """
    if placement.chosen is None:
        raise UsageError(f"no node can take it: {placement.refusal}")
    return placement.chosen


def check_room(request: Request, node: Node, facts: NodeFacts, before: int) -> None:
    """See that a guest which is made, and stands still, fits beside those started before it.

    Two boots at once both find room for one; then the one that came first stays.

    Args:
        request: for it.
        node: it is on.
        facts: what that said before.
        before: bytes the guests may ask for that were started before it.

    Raises:
        UsageError: it does not.
    """
    free = facts.memory - node.reserve - before
    if free < request.memory:
        raise UsageError(
            f"{node.name} has no room for it any more: it needs {size_text(request.memory)}, "
            f"{size_text(max(free, 0))} is free since another guest was started meanwhile; "
            "run it again, to have it placed anew"
        )


def check_free(name: str, exports: Sequence[ExportFacts], overlays: Sequence[OverlayFacts]) -> None:
    """See that nothing of a former guest of that name is served or kept.

    Raises:
        UsageError: something is; a new guest would start from an old one's disk.
    """
    served = [one.name for one in exports if guest_of(one.name) == name]
    if guest_export_name(name) in served:
        what = f"the disk of a guest {name} is still served, which may be on a node that is off"
    elif served:
        what = f"{', '.join(served)} of a guest {name} is still served"
    elif kept := [one.path for one in overlays if guest_of(one.path) == name]:
        what = f"the disk of a former guest {name} is still kept in {kept[0]}"
    else:
        return
    raise UsageError(
        f"{what}; choose another name, or remove what is left: minicloud destroy {name}, or "
        "minicloud gc"
    )
