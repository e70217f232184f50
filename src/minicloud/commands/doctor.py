"""`minicloud doctor`: the whole way from here to a guest's disk, each step of it with its remedy.

All nodes are looked at in parallel, within the time for the whole; then the ways between those that
let us in. A node that does not answer costs the others nothing, and what rests on a step that
failed is skipped and says so.

Exit status: 0 nothing failed, 1 something did, 2 no node can be used.
"""

import argparse
import asyncio
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from minicloud.commands.context import Context
from minicloud.deadline import within
from minicloud.doctor.check import Check, Status, Subject, tidied
from minicloud.doctor.customizing import check_customize
from minicloud.doctor.exam import Exam
from minicloud.doctor.exportserver import check_export_server
from minicloud.doctor.gathering import Told, examine, examine_ways, server_status
from minicloud.doctor.judging import check_inventory, check_node
from minicloud.doctor.survey import CUSTOMIZE
from minicloud.errors import MinicloudError
from minicloud.images.checking import check_images
from minicloud.model.inventory import NbdService, Node
from minicloud.model.view import Lines, Outcome

__all__ = [
    "CHANGES",
    "HELP",
    "NEEDS_NODES",
    "add_arguments",
    "doctor_outcome",
    "run",
    "server_checks",
]

HELP: Final = "the whole way to each node and to the exports, each failure with its remedy"
CHANGES: Final = False
NEEDS_NODES: Final = False

# Seconds of the whole that are kept for the ways between nodes; of a short one, all but a share.
_WAYS: Final = 4.0
_SHARE: Final = 0.6

_SEVERAL: Final = "{} checks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `doctor` alone takes."""
    parser.add_argument(
        "--images", action="store_true",
        help="look at the images of the templates too, without reading all of them",
    )  # fmt: skip


async def run(context: Context, arguments: argparse.Namespace) -> Outcome:
    """Look at everything, then judge it."""
    exams = {node.name: Exam(node) for node in context.cluster.nodes(context.only)}
    checks = list(check_inventory(context.inventory))
    with within(context.cluster.patience.whole):
        _, told, images = await asyncio.gather(
            _look(context, exams), _ask_servers(context, exams), _images(context, arguments)
        )
    for exam in exams.values():
        checks += check_node(exam, context.inventory)
    checks += [*server_checks(context.inventory.nbd, told, exams), *images]
    is_here = shutil.which(CUSTOMIZE) is not None
    checks.append(check_customize(list(exams.values()), is_here=is_here))
    return doctor_outcome(checks, is_usable=any(exam.is_usable for exam in exams.values()))


async def _look(context: Context, exams: Mapping[str, Exam]) -> None:
    """Look at the nodes, then at the ways between them."""
    cluster = context.cluster
    whole, begun = cluster.patience.whole, time.monotonic()
    most = None if whole is None else max(whole - _WAYS, whole * _SHARE)
    nodes = [exam.node for exam in exams.values()]

    async def look(node: Node) -> None:
        await examine(cluster, context.storage.at(node), exams[node.name])

    context.report.step("looking at the nodes")
    done = 0
    async for row in cluster.each(look, nodes, whole=most):
        if row.error is not None:
            exams[row.node].access = exams[row.node].access or row.error
        done += 1
        context.report.progress(done, len(nodes), "nodes")
    left = None if whole is None else max(0.0, whole - (time.monotonic() - begun))
    await _look_between(context, exams, left)


async def _look_between(context: Context, exams: Mapping[str, Exam], seconds: float | None) -> None:
    nbd = context.inventory.nbd
    if nbd is not None and nbd.socket is not None:
        return
    reached = [exam.node for exam in exams.values() if exam.is_in]

    async def look(node: Node) -> None:
        others = [other for other in reached if other is not node]
        await examine_ways(context.cluster, exams[node.name], others)

    context.report.step("trying the ways between the nodes")
    await context.cluster.gather(look, reached, whole=seconds)


async def _ask_servers(context: Context, exams: Mapping[str, Exam]) -> Mapping[str, Told]:
    """Ask the server of the exports, or that of each node, by the node's name."""
    storage = context.storage
    if storage.nbd is None:
        return {}
    if not storage.is_per_node:
        return {"": await server_status(storage)}
    asking = (server_status(storage.at(exam.node)) for exam in exams.values())
    return dict(zip(exams, await asyncio.gather(*asking), strict=True))


def server_checks(
    nbd: NbdService | None, told: Mapping[str, Told], exams: Mapping[str, Exam]
) -> Iterator[Check]:
    """Judge what the servers said; that of a node which let nobody in could not be asked.

    Args:
        nbd: where they should be.
        told: by each, by its node's name, or by "" where one serves all.
        exams: of the nodes.
    """
    for name, status in told.items():
        assert nbd is not None, "without one nobody was asked"
        subject = Subject(f"nbd of {name}" if name else "nbd")
        if name and not exams[name].is_in:
            yield subject.skipped("control", f"{name} let nobody in")
        else:
            yield from check_export_server(subject, nbd, status)


async def _images(context: Context, arguments: argparse.Namespace) -> list[Check]:
    if not arguments.images:
        return []
    checked = await check_images(
        context.inventory, list(context.inventory.templates.values()), context.report, whole=False,
        reach=context.cluster.session_to, deadline=context.cluster.patience.whole,
    )  # fmt: skip
    checks: list[Check] = []
    for one in checked:
        subject = Subject(f"template {one.template.name}")
        checks += (_image_failed(subject, one.place, error) for error in one.errors)
        checks += (subject.warning(one.place, text) for text in one.warnings)
        if not one.errors and not one.warnings:
            checks.append(subject.good(one.place, "can be read"))
    return checks


def _image_failed(subject: Subject, place: str, error: MinicloudError) -> Check:
    text, remedy = tidied(str(error))
    return subject.failed(place, text, remedy or "minicloud image check")


def doctor_outcome(checks: Sequence[Check], *, is_usable: bool) -> Outcome:
    """Make what is shown of the checks.

    Args:
        checks: in the order to show them, those of one subject together.
        is_usable: one node at least can be used.
    """
    failed = [one for one in checks if one.status is Status.FAILED]
    document = {
        "checks": [_document(one) for one in checks],
        "errors": [
            {"node": one.subject, "reason": one.name, "message": one.text, "remedy": one.remedy}
            for one in failed
        ],
    }
    status = 2 if not is_usable else min(len(failed), 1)
    return Outcome(document, [Lines(tuple(_lines(checks)))], status=status)


def _document(check: Check) -> dict[str, Any]:
    return {
        "subject": check.subject,
        "check": check.name,
        "status": str(check.status),
        "text": check.text,
        "remedy": check.remedy,
    }


def _lines(checks: Sequence[Check]) -> Iterator[str]:
    """Write a line a check, and one for all that were skipped for one reason."""
    width = max(len(name) for name in (_SEVERAL.format(99), *(one.name for one in checks)))
    for subject, of_it in groupby(checks, lambda one: one.subject):
        yield subject
        for key, alike in groupby(of_it, _reason_to_skip):
            several = list(alike)
            if key and len(several) > 1:
                yield f"  {Status.SKIPPED:<8} {_SEVERAL.format(len(several)):<{width}}  {key}"
                continue
            for check in several:
                yield f"  {check.status:<8} {check.name:<{width}}  {check.text}"
                if check.remedy:
                    yield f"  {'':8} {'':{width}}  -> {check.remedy}"
    counts = Counter(check.status for check in checks)
    yield ", ".join(f"{counts[status]} {status}" for status in Status if counts[status])


def _reason_to_skip(check: Check) -> str:
    return check.text if check.status is Status.SKIPPED else ""
