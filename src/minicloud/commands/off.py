"""`minicloud off`: switches off a node that has no guests running."""

import argparse
from typing import Final

from minicloud.commands.context import Context
from minicloud.commands.presence import wait_until
from minicloud.commands.values import typed
from minicloud.errors import NodeError, Reason
from minicloud.model.guest import Guest
from minicloud.model.inventory import Node
from minicloud.model.view import Lines, Outcome
from nbdserve.params import TIMEOUT

__all__ = ["CHANGES", "HELP", "add_arguments", "run"]

HELP: Final = "switch off a node that has been drained"
CHANGES: Final = True

_WAITING: Final = 120.0  # seconds; systemd gives what it stops 90
_SCRIPT: Final = """
if [ "$(id -u)" = 0 ]; then may=; else may='sudo -n'; fi
$may systemctl poweroff || $may poweroff
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `off` alone takes."""
    parser.add_argument("ended", metavar="NODE", help="which")
    parser.add_argument(
        "--wait", nargs="?", type=typed(TIMEOUT.parse), const=_WAITING, metavar="TIME",
        help=f"until it does not answer any more, at most TIME (default {_WAITING:g}s)",
    )  # fmt: skip


async def run(context: Context, arguments: argparse.Namespace) -> Outcome:
    """Switch it off, unless guests run there."""
    node = context.cluster.node(arguments.ended)
    context.report.step(f"asking {node.name} for its guests")
    try:
        facts = await context.cluster.facts(node.name)
    except NodeError as exc:
        if exc.reason is not Reason.OFF:
            raise
        return _done(node, f"{node.name} is off already")
    running = [guest for guest in facts.guests if guest.is_active]
    if running:
        return _refused(node, running)
    if context.dry_run:
        return _done(node, f"{node.name} would be switched off")
    await _switch_off(context, node)
    if arguments.wait is None:
        return _done(node, f"{node.name} is switching off")
    context.report.step(f"waiting for {node.name} to go off")
    seconds = min(arguments.wait, context.timeout or arguments.wait)
    if not await wait_until(context, node.name, is_there=False, seconds=seconds):
        raise NodeError(
            Reason.DEADLINE, f"{node.name} still answers after {seconds:g} s", "look at its console"
        )
    return _done(node, f"{node.name} is off")


async def _switch_off(context: Context, node: Node) -> None:
    """Tell it to.

    Raises:
        NodeError: this user may not, or it cannot be told.
    """
    session = await context.cluster.session(node.name)
    try:
        done = await session.run(["sh", "-c", _SCRIPT])
    except NodeError as exc:
        if exc.reason is Reason.SSH_LOST:
            return  # it went before it could say so
        raise
    if done.status > 0:
        said = " ".join(done.stderr.decode(errors="replace").split())
        raise NodeError(
            Reason.COMMAND,
            f"{node.name} cannot be switched off: {said or f'status {done.status}'}",
            "log in as root, or let the user run `systemctl poweroff` by sudo without a password",
        )


def _done(node: Node, line: str) -> Outcome:
    return Outcome({"node": node.name, "said": line, "errors": []}, [Lines((line,))])


def _refused(node: Node, running: list[Guest]) -> Outcome:
    names = ", ".join(guest.name for guest in running)
    message = f"{node.name} is not switched off: {names} run{'s' * (len(running) == 1)} there"
    remedy = f"minicloud drain {node.name}"
    error = {"node": node.name, "reason": "guests", "message": message, "remedy": remedy}
    document = {"node": node.name, "guests": [guest.name for guest in running], "errors": [error]}
    return Outcome(document, errors=[f"{message}; {remedy}"], status=2)
