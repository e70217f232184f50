"""`minicloud migrate`: moves a guest to another node while it runs, both ends checked first."""

import argparse
import asyncio
from collections.abc import Sequence
from typing import Any, Final

from minicloud.commands.context import Context
from minicloud.commands.ends import Prospect, leaver, prospect
from minicloud.commands.guests import add_guest, find_guest
from minicloud.commands.relocation import Relocation, Terms, relocate
from minicloud.commands.values import typed
from minicloud.hypervisor.migration import Job, Moved
from minicloud.model.guest import Guest
from minicloud.model.sizes import size_text
from minicloud.model.view import Lines, Outcome, Table
from minicloud.moving.finding import Finding, Level, problems
from nbdserve.params import SIZE

__all__ = [
    "CHANGES",
    "HELP",
    "add_arguments",
    "add_terms",
    "finding_documents",
    "moved_text",
    "run",
    "terms_of",
]

HELP: Final = "move a guest to another node while it runs; both ends are checked first"
CHANGES: Final = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `migrate` alone takes."""
    add_guest(parser)
    parser.add_argument("target", metavar="NODE", help="where to")
    add_terms(parser)


def add_terms(parser: argparse.ArgumentParser) -> None:
    """Add how guests move."""
    parser.add_argument(
        "--bandwidth", type=typed(SIZE.parse), metavar="SIZE",
        help="send at most so many bytes a second, e.g. 100M",
    )  # fmt: skip
    parser.add_argument(
        "--tls", action="store_true",
        help="encrypt the guest's memory on the way; both nodes need certificates for qemu",
    )  # fmt: skip


def terms_of(context: Context, arguments: argparse.Namespace) -> Terms:
    """Read them; a time for the whole command begins now."""
    end = None if context.timeout is None else asyncio.get_running_loop().time() + context.timeout
    return Terms(end=end, bandwidth=arguments.bandwidth, tls=arguments.tls)


async def run(context: Context, arguments: argparse.Namespace) -> Outcome:
    """Check both ends, and move the guest if nothing speaks against it."""
    terms = terms_of(context, arguments)
    target = context.cluster.node(arguments.target)
    context.report.step(f"looking for {arguments.guest}")
    guest = await find_guest(context, arguments.guest)
    if guest.node == target.name:
        return _there_already(guest)
    context.report.step(f"asking {guest.node} and {target.name}")
    chance = await prospect(context, await leaver(context, guest), target)
    if context.dry_run or problems(chance.findings):
        return _checked(chance)
    context.report.step(f"moving {guest.name} from {guest.node} to {target.name}")

    def on_job(job: Job) -> None:
        context.report.progress(job.done, job.done + job.left)

    relocation = await relocate(context, chance, terms, on_job)
    return _outcome(chance, relocation)


def moved_text(guest: str, node: str, target: str, moved: Moved) -> str:
    """Say how a move went, in one line."""
    parts = [f"{moved.seconds:.1f} s"]
    if moved.downtime is not None:
        parts.append(f"stood still for {moved.downtime * 1000:.0f} ms")
    if moved.sent is not None:
        parts.append(f"{size_text(moved.sent)} sent")
    return f"{guest} moved from {node} to {target} ({', '.join(parts)})"


def finding_documents(findings: Sequence[Finding]) -> list[dict[str, str]]:
    """Tell findings to programs."""
    return [
        {"check": one.topic, "level": str(one.level), "text": one.text, "remedy": one.remedy}
        for one in findings
    ]


def _there_already(guest: Guest) -> Outcome:
    document = {"guest": guest.name, "from": guest.node, "to": guest.node, "moved": False}
    line = f"{guest.name} is on {guest.node} already"
    return Outcome({**document, "checks": [], "errors": []}, [Lines((line,))])


def _document(chance: Prospect, *, is_moved: bool) -> dict[str, Any]:
    guest = chance.leaver.guest
    return {
        "guest": guest.name,
        "from": guest.node,
        "to": chance.target.name,
        "moved": is_moved,
        "checks": finding_documents(chance.findings),
        "errors": [],
    }


def _checked(chance: Prospect) -> Outcome:
    """Show what was checked, and nothing has been done."""
    found = problems(chance.findings)
    guest, target = chance.leaver.guest, chance.target.name
    rows = [(one.topic, str(one.level), one.text) for one in chance.findings]
    document = _document(chance, is_moved=False)
    document["errors"] = [
        {"node": guest.node, "reason": "check", "message": one.text, "remedy": one.remedy}
        for one in found
    ]
    verdict = "can move" if not found else "cannot move"
    return Outcome(
        document,
        [
            Table(("check", "result", "found"), rows),
            Lines((f"{guest.name} {verdict} from {guest.node} to {target}",)),
        ],
        [f"{guest.name}: {one}" for one in found],
        2 if found else 0,
    )


def _outcome(chance: Prospect, relocation: Relocation) -> Outcome:
    guest, target = chance.leaver.guest, chance.target.name
    document = _document(chance, is_moved=relocation.moved is not None)
    if relocation.moved is None:
        document["errors"] = [
            {"node": guest.node, "reason": "migration", "message": relocation.error, "remedy": ""}
        ]
        line = f"{guest.name} was not moved to {target}: {relocation.error}"
        return Outcome(document, (), [line], 2, relocation.is_interrupted)
    moved = relocation.moved
    document |= {"seconds": moved.seconds, "downtime": moved.downtime, "bytes": moved.sent}
    notes = [str(one) for one in chance.findings if one.level is Level.WARNING]
    notes += [relocation.note] if relocation.note else []
    lines = (moved_text(guest.name, guest.node, target, moved), *(f"  {note}" for note in notes))
    return Outcome(document, [Lines(lines)])
