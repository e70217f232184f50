"""`minicloud drain`: moves all guests of a node to the others, so that it can be switched off.

There is room for all of them before the first one moves, or none moves. A guest that cannot leave
its node keeps no other from it: it is named with the reason, or stopped where that was asked for.
"""

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from minicloud.commands.context import Context
from minicloud.commands.ends import Leaver, Prospect, leaver, prospect
from minicloud.commands.failures import failure_documents, failure_lines
from minicloud.commands.migrate import add_terms, moved_text, terms_of
from minicloud.commands.places import find_place
from minicloud.commands.relocation import Relocation, Terms, relocate
from minicloud.commands.values import typed
from minicloud.errors import MinicloudError, NodeError, Reason
from minicloud.hypervisor import power
from minicloud.hypervisor.events import start_events
from minicloud.model.guest import Guest, NodeFacts
from minicloud.model.inventory import Node
from minicloud.model.outcome import Row
from minicloud.model.view import Lines, Outcome, Table, View
from minicloud.moving.capacity import Load, plan_places
from minicloud.moving.finding import Finding, problems
from nbdserve.params import COUNT, DURATION

__all__ = ["CHANGES", "HELP", "add_arguments", "run"]

HELP: Final = "move all guests of a node to the others"
CHANGES: Final = True

_AT_ONCE: Final = 2  # a third only shares the link with the two
_GRACE: Final = 60.0  # seconds a guest that is stopped has to shut down


@dataclass(frozen=True, slots=True)
class Going:
    """A guest of the node, and what becomes of it.

    Attributes:
        guest: it.
        chance: where it can go; None where it cannot.
        why: it cannot, or "".
        said: what came of it, for people.
        is_done: it is not there any more.
    """

    guest: Guest
    chance: Prospect | None = None
    why: str = ""
    said: str = ""
    is_done: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `drain` alone takes."""
    parser.add_argument("drained", metavar="NODE", help="the node to be emptied")
    parser.add_argument(
        "--parallel", type=typed(_count), default=_AT_ONCE, metavar="N",
        help=f"guests that move at once (default {_AT_ONCE})",
    )  # fmt: skip
    parser.add_argument(
        "--stop-others", action="store_true", help="stop the guests that cannot move"
    )
    parser.add_argument(
        "--grace", type=typed(DURATION.parse), default=_GRACE, metavar="TIME",
        help=f"how long a guest has to shut down before it is forced (default {_GRACE:g}s)",
    )  # fmt: skip
    add_terms(parser)


async def run(context: Context, arguments: argparse.Namespace) -> Outcome:
    """Find a place for each guest, then move them."""
    terms = terms_of(context, arguments)
    if arguments.stop_others:
        start_events()
    node = context.cluster.node(arguments.drained)
    context.report.step(f"asking {node.name} for its guests")
    facts = await _facts(context, node)
    if not facts.guests:
        return _outcome(node, [], [], is_dry=True)
    others = [one for one in context.cluster.nodes(context.only) if one.name != node.name]
    rows = await context.cluster.gather(lambda one: context.cluster.facts(one.name), others)
    plan = _Planning(context, node, rows)
    await plan.look(facts.guests)
    if refusal := plan.refusal():
        return refusal
    goings = await plan.places()
    failed = [row for row in rows if not row.is_off]  # off is a normal state of a node
    if context.dry_run:
        return _outcome(node, goings, failed, is_dry=True)
    leaving = _Leaving(context, arguments, terms)
    goings = await leaving.carry_out(goings)
    outcome = _outcome(node, goings, failed)
    return replace(outcome, is_interrupted=leaving.is_ended)


async def _facts(context: Context, node: Node) -> NodeFacts:
    """Ask the node; one that is dead has nothing to move, and its guests another remedy."""
    try:
        return await context.cluster.facts(node.name)
    except NodeError as exc:
        if exc.reason not in {Reason.OFF, Reason.UNREACHABLE}:
            raise
        remedy = f"if it has died, minicloud recover {node.name} starts its guests elsewhere"
        raise NodeError(exc.reason, f"{node.name}: {exc.message}", remedy) from exc


class _Planning:
    """Finds a node for each guest before any of them moves."""

    def __init__(self, context: Context, node: Node, rows: Sequence[Row[NodeFacts]]) -> None:
        self._context = context
        self._node = node
        self._rows = rows
        self._free = {
            row.node: row.value.memory_free(context.cluster.node(row.node).reserve)
            for row in rows
            if row.value is not None
        }
        self._leavers: list[Leaver] = []
        self._stuck: list[Going] = []

    async def look(self, guests: Sequence[Guest]) -> None:
        """Ask what each guest is, and whether it can leave at all."""
        for guest in guests:
            try:
                one = await leaver(self._context, guest)
            except MinicloudError as exc:  # it may have ended just now
                self._stuck.append(Going(guest, why=str(exc)))
                continue
            if found := problems(one.findings):
                self._stuck.append(Going(guest, why=str(found[0])))
            else:
                self._leavers.append(one)

    def refusal(self) -> Outcome | None:
        """Say what is lacking, if there is not room for all."""
        lacking = plan_places(self._loads(), self._free).lacking
        if not lacking:
            return None
        lines = [str(lack) for lack in lacking]
        errors = [_error(self._node.name, lack.guest, str(lack)) for lack in lacking]
        return Outcome(
            {"node": self._node.name, "guests": [], "errors": errors},
            errors=[
                *failure_lines(row for row in self._rows if not row.is_off),
                *lines,
                f"{self._node.name} is not drained: nothing was moved",
            ],
            status=2,
        )

    async def places(self) -> list[Going]:
        """Give each guest a node that takes it: the one planned, or else the next emptiest."""
        plan = plan_places(self._loads(), self._free)
        byname = {one.guest.name: one for one in self._leavers}
        return [
            *[await self._place(byname[name], first) for name, first in plan.places.items()],
            *self._stuck,
        ]

    async def _place(self, one: Leaver, first: str) -> Going:
        chances: dict[str, Prospect] = {}

        async def check(name: str) -> tuple[Finding, ...]:
            chances[name] = await prospect(self._context, one, self._context.cluster.node(name))
            return chances[name].findings

        name, why = await find_place(_need(one.guest), self._free, first, check)
        return Going(one.guest, None if name is None else chances[name], why)

    def _loads(self) -> list[Load]:
        return [Load(one.guest.name, _need(one.guest)) for one in self._leavers]


class _Leaving:
    """Moves the guests, a few at once.

    Attributes:
        is_ended: the operator ended it.
    """

    def __init__(self, context: Context, arguments: argparse.Namespace, terms: Terms) -> None:
        self._context = context
        self._terms = terms
        self._places = asyncio.Semaphore(arguments.parallel)
        self._stops_others: bool = arguments.stop_others
        self._grace: float = arguments.grace
        self._shares: dict[str, tuple[int, int]] = {}  # bytes done and in all, by guest
        self.is_ended = False

    async def carry_out(self, goings: Sequence[Going]) -> list[Going]:
        """Move or stop each; when the operator ends it, the others stay where they are."""
        tasks = [asyncio.create_task(self._one(going)) for going in goings]
        waiting = asyncio.gather(*tasks, return_exceptions=True)
        try:
            await asyncio.shield(waiting)
        except asyncio.CancelledError:
            self.is_ended = True
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        return [
            replace(going, said="it was interrupted") if task.cancelled() else task.result()
            for going, task in zip(goings, tasks, strict=True)
        ]

    async def _one(self, going: Going) -> Going:
        if going.chance is None and not self._stops_others:
            return replace(going, said=going.why)
        async with self._places:
            if self.is_ended:
                return replace(going, said="it was interrupted")
            if going.chance is None:
                return await self._stop(going)
            return await self._move(going, going.chance)

    async def _move(self, going: Going, chance: Prospect) -> Going:
        guest = going.guest
        self._context.report.step(f"moving {guest.name} to {chance.target.name}")

        def on_job(job: Any) -> None:
            self._shares[guest.name] = (job.done, job.done + job.left)
            done, total = (sum(column) for column in zip(*self._shares.values(), strict=True))
            self._context.report.progress(done, total)

        relocation: Relocation = await relocate(self._context, chance, self._terms, on_job)
        self._shares.pop(guest.name, None)
        if relocation.moved is None:
            return replace(going, said=relocation.error)
        text = moved_text(guest.name, guest.node, chance.target.name, relocation.moved)
        note = f"; {relocation.note}" if relocation.note else ""
        return replace(going, said=text + note, is_done=True)

    async def _stop(self, going: Going) -> Going:
        guest = going.guest
        if not guest.is_active:
            return replace(going, said=going.why)
        self._context.report.step(f"waiting for {guest.name} to shut down")
        try:
            hypervisor = await self._context.cluster.hypervisor(guest.node)
            stopped = await power.stop(hypervisor, guest.uuid, grace=self._grace)
        except MinicloudError as exc:
            return replace(going, said=f"{going.why}; not stopped: {exc}")
        how = "switched off" if stopped.was_forced else "shut down"
        return replace(going, said=f"{guest.name} was {how}: {going.why}", is_done=True)


def _outcome(
    node: Node, goings: Sequence[Going], rows: Sequence[Row[NodeFacts]], *, is_dry: bool = False
) -> Outcome:
    left = [going for going in goings if not (going.chance if is_dry else going.is_done)]
    errors = [_error(node.name, one.guest.name, one.said or one.why) for one in left]
    document = {
        "node": node.name,
        "guests": [_document(going) for going in goings],
        "errors": [*errors, *failure_documents(rows)],
    }
    lines = [f"{one.guest.name} stays on {node.name}: {one.said or one.why}" for one in left]
    gone = len(goings) - len(left)
    status = 0 if not left else 1 if gone else 2
    views: list[View] = (
        [_plan(goings)] if is_dry else [Lines(tuple(one.said for one in goings if one.is_done))]
    )
    if not left:
        views.append(Lines((_empty(node, goings, is_dry=is_dry),)))
    return Outcome(document, views, [*failure_lines(rows), *lines], status)


def _empty(node: Node, goings: Sequence[Going], *, is_dry: bool) -> str:
    if not goings:
        return f"{node.name} has no guests"
    if is_dry:
        return f"{node.name} can be drained"
    return f"{node.name} is drained; minicloud off {node.name} switches it off"


def _plan(goings: Sequence[Going]) -> Table:
    rows = [
        (
            one.guest.name,
            "running" if one.guest.is_active else "off",
            f"{one.guest.memory >> 20}M",
            one.chance.target.name if one.chance else "-",
            one.why,
        )
        for one in goings
    ]
    return Table(("guest", "state", "memory", "to", "why not"), rows, frozenset({"memory"}))


def _document(going: Going) -> Mapping[str, Any]:
    return {
        "guest": going.guest.name,
        "to": going.chance.target.name if going.chance else None,
        "done": going.is_done,
        "said": going.said or going.why,
    }


def _error(node: str, guest: str, message: str) -> dict[str, str]:
    return {"node": node, "guest": guest, "reason": "stays", "message": message, "remedy": ""}


def _need(guest: Guest) -> int:
    return guest.memory if guest.is_active else 0


def _count(text: str) -> int:
    return max(1, COUNT.parse(text))
