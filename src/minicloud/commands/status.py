"""`minicloud status`: each node, on or off and why not; what it has, what guests use, what is free.

Free is what further guests may have: total - reserve - memory of the active guests, as mclu counts,
and not what the kernel has free at the moment (that is `available` in the document). vCPUs are
shown and never taken off the processors.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, Final

from minicloud.commands.context import Context
from minicloud.commands.failures import failure_documents
from minicloud.errors import NodeError, Reason
from minicloud.model.guest import NodeFacts
from minicloud.model.inventory import Node
from minicloud.model.outcome import Row, exit_status
from minicloud.model.sizes import size_text
from minicloud.model.view import Lines, Outcome

__all__ = ["CHANGES", "HELP", "add_arguments", "repeats", "run", "status_outcome"]

HELP: Final = "what each node has, uses and has free, or why it does not answer"
CHANGES: Final = False

_EVERY: Final = 2.0  # seconds between two rounds of --watch, as watch(1) has it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `status` alone takes."""
    parser.add_argument(
        "--watch", action="store_true", help="show it again and again, until interrupted"
    )


def repeats(arguments: argparse.Namespace) -> float | None:
    """Return the seconds after which the command is to be run again; None is never."""
    return _EVERY if arguments.watch else None


async def run(context: Context, arguments: argparse.Namespace) -> Outcome:
    """Ask every node."""
    nodes = context.cluster.nodes(context.only)
    if repeats(arguments) is not None:
        for node in nodes:
            await context.cluster.forget(node.name)
    context.report.step("asking the nodes")
    rows: dict[str, Row[NodeFacts]] = {}

    async def facts(node: Node) -> NodeFacts:
        return await context.cluster.facts(node.name, with_origin=False)

    async for row in context.cluster.each(facts, nodes):
        rows[row.node] = row
        context.report.progress(len(rows), len(nodes), "nodes")
    return status_outcome([rows[node.name] for node in nodes], context.inventory.nodes)


def status_outcome(rows: Sequence[Row[NodeFacts]], nodes: Mapping[str, Node]) -> Outcome:
    """Make what is shown of the nodes' answers.

    Args:
        rows: in the order to show them.
        nodes: by name.
    """
    width = max([len(row.node) for row in rows], default=0) + 3
    lines = [line for row in rows for line in _lines(row, nodes[row.node], width)]
    document = {
        "nodes": [_document(row, nodes[row.node]) for row in rows],
        "errors": failure_documents(rows),
    }
    return Outcome(document, [Lines(tuple(lines))], status=exit_status(rows))


def _lines(row: Row[NodeFacts], node: Node, width: int) -> list[str]:
    name = row.node.ljust(width)
    indent = " " * width
    if row.value is None:
        assert row.error is not None
        return [f"{name}{_failure(row.error)}"]
    facts = row.value
    note = f" ({row.note})" if row.note else ""
    lines = [
        f"{name}on{note}",
        f"{indent}total: {facts.cpus}pcpus {size_text(facts.memory)}",
    ]
    if count := sum(guest.is_active for guest in facts.guests):
        used = f"{facts.vcpus_used}vcpus {size_text(facts.memory_used)} by {count} guest(s)"
        lines.append(f"{indent} used: {used}")
    lines.append(f"{indent} free: {size_text(facts.memory_free(node.reserve))}")
    return lines


def _failure(error: NodeError) -> str:
    """Name the reason, then say more; a node that is off is nothing to speak of, as in mclu."""
    if error.reason is Reason.OFF:
        return str(error.reason)
    return f"{error.reason}: {error}"


def _document(row: Row[NodeFacts], node: Node) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": row.node,
        "state": "on" if row.error is None else str(row.error.reason),
        "seconds": round(row.seconds, 3),
        "reserve": node.reserve,
        "tags": list(node.tags),
    }
    if row.note:
        document["note"] = row.note
    if (facts := row.value) is None:
        return document
    return document | {
        "hostname": facts.hostname,
        "libvirt": _version(facts.libvirt),
        "qemu": _version(facts.qemu),
        "total": {"cpus": facts.cpus, "memory": facts.memory},
        "used": {
            "vcpus": facts.vcpus_used,
            "memory": facts.memory_used,
            "guests": sum(guest.is_active for guest in facts.guests),
        },
        "free": {"memory": facts.memory_free(node.reserve), "available": facts.memory_available},
    }


def _version(version: tuple[int, int, int] | None) -> str | None:
    return None if version is None else ".".join(map(str, version))
