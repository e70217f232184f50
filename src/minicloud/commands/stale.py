"""Definitions that a node still has of guests that were recovered elsewhere while it was dead."""

import functools

from minicloud.commands.context import Context
from minicloud.errors import NodeError
from minicloud.hypervisor.revival import undefine
from minicloud.model.inventory import Node

__all__ = ["forget_stale"]


async def forget_stale(context: Context, node: Node) -> list[str]:
    """Take the definitions of guests off a node that run on another one.

    Left there, such a guest would be started twice when somebody means the other one; its disk
    would let only one of them write.

    Returns:
        A line for people about each; what could not be asked is left as it is.
    """
    others = [one for one in context.cluster.nodes() if one.name != node.name]
    rows = await context.cluster.gather(lambda one: context.cluster.facts(one.name), others)
    elsewhere = {
        guest.uuid: row.node
        for row in rows
        if row.value is not None
        for guest in row.value.guests
        if guest.is_active
    }
    lines: list[str] = []
    try:
        facts = await context.cluster.facts(node.name)
        hypervisor = await context.cluster.hypervisor(node.name)
        for guest in facts.guests:
            if not guest.is_active and guest.uuid in elsewhere:
                await hypervisor.call(functools.partial(undefine, uuid=guest.uuid))
                place = elsewhere[guest.uuid]
                lines.append(f"{guest.name} runs on {place}; its old definition here is gone")
    except NodeError as exc:
        lines.append(f"{node.name} does not say whether it has old definitions: {exc.message}")
    return lines
