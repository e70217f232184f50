"""`minicloud on`: wakes a node by its network card (wake-on-LAN)."""

import argparse
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from minicloud.commands.context import Context
from minicloud.commands.presence import wait_until
from minicloud.commands.stale import forget_stale
from minicloud.commands.values import typed
from minicloud.errors import NodeError, Reason, UsageError
from minicloud.model.inventory import Node
from minicloud.model.view import Lines, Outcome
from minicloud.resolving import addresses_of
from minicloud.wakeup import DISCARD, broadcasts, magic_packet
from nbdserve.params import TIMEOUT

__all__ = ["CHANGES", "HELP", "add_arguments", "run"]

HELP: Final = "wake a node"
CHANGES: Final = True

_WAITING: Final = 300.0  # seconds; a server's firmware takes minutes
_RESOLVING: Final = 2.0
_ROUTES: Final = Path("/proc/net/route")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `on` alone takes."""
    parser.add_argument("woken", metavar="NODE", help="which; its mac is in the inventory")
    parser.add_argument(
        "--wait", nargs="?", type=typed(TIMEOUT.parse), const=_WAITING, metavar="TIME",
        help=f"until it answers, at most TIME (default {_WAITING:g}s); then forget the guests it "
        "had that were recovered elsewhere",
    )  # fmt: skip


async def run(context: Context, arguments: argparse.Namespace) -> Outcome:
    """Send the packet; wait if asked to."""
    node = context.cluster.node(arguments.woken)
    if node.mac is None:
        raise UsageError(
            'it has none; write mac = "aa:bb:cc:dd:ee:ff"', table=f"nodes.{node.name}", key="mac"
        )
    # one that is off often has a name all the same
    own = await addresses_of(node.host, seconds=_RESOLVING, family=socket.AF_INET)
    targets = broadcasts(_routes(), own)
    document = {"node": node.name, "mac": node.mac, "sent_to": list(targets), "errors": []}
    if context.dry_run:
        line = f"would wake up {node.mac} by {', '.join(targets)}"
        return Outcome(document, [Lines((line,))])
    _send(magic_packet(node.mac), targets)
    lines = [f"Waking up {node.mac}..."]
    if arguments.wait is None:
        return Outcome(document, [Lines(tuple(lines))])
    seconds = min(arguments.wait, context.timeout or arguments.wait)
    context.report.step(f"waiting for {node.name} to answer")
    if not await wait_until(context, node.name, is_there=True, seconds=seconds):
        return _silent(node, document, lines, seconds)
    forgotten = await forget_stale(context, node)
    lines += [f"{node.name} is on", *forgotten]
    return Outcome({**document, "is_on": True, "forgotten": forgotten}, [Lines(tuple(lines))])


def _silent(
    node: Node, document: Mapping[str, object], lines: Sequence[str], seconds: float
) -> Outcome:
    error = {
        "node": node.name, "reason": str(Reason.DEADLINE),
        "message": f"it did not answer within {seconds:g} s", "remedy":
        "is wake-on-LAN on in its firmware and card (ethtool), and is it on this network?",
    }  # fmt: skip
    return Outcome(
        {**document, "is_on": False, "errors": [error]},
        [Lines(tuple(lines))],
        [f"{node.name}: {error['message']}; {error['remedy']}"],
        2,
    )


def _send(packet: bytes, targets: Sequence[str]) -> None:
    """Send a packet to some broadcast addresses.

    Raises:
        NodeError: it could be sent to none of them.
    """
    errors: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        for target in targets:
            try:
                sock.sendto(packet, (target, DISCARD))
            except OSError as exc:
                errors.append(f"{target}: {exc.strerror}")
    if len(errors) == len(targets):
        raise NodeError(Reason.UNREACHABLE, f"the packet cannot be sent ({'; '.join(errors)})")


def _routes() -> str:
    try:
        return _ROUTES.read_text()
    except OSError:  # not Linux: the broadcast to all must do
        return ""
