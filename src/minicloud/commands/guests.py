"""What the commands about a guest share: naming it, finding it, telling of it."""

import argparse
from typing import Any

from minicloud.commands.context import Context
from minicloud.errors import MinicloudError, NodeError, StorageError, UsageError
from minicloud.model.guest import Guest

__all__ = ["add_guest", "add_guests", "failure_document", "find_guest", "guest_document", "titled"]

_HELP = "NAME, or NODE:NAME where several nodes have one of that name"


def add_guest(parser: argparse.ArgumentParser) -> None:
    """Add the name of one guest."""
    parser.add_argument("guest", metavar="GUEST", help=_HELP)


def add_guests(parser: argparse.ArgumentParser) -> None:
    """Add the names of guests."""
    parser.add_argument("guests", nargs="+", metavar="GUEST", help=_HELP)


async def find_guest(context: Context, text: str) -> Guest:
    """Find a guest on the nodes that `--node` allows.

    Args:
        context: of the run.
        text: `NAME` or `NODE:NAME`.

    Raises:
        UsageError: there is no such guest, or several, or it is on another node.
        NodeError: it is on none of the nodes that answer, and some do not.
    """
    if len(context.only) == 1 and ":" not in text:
        text = f"{context.only[0]}:{text}"  # the other nodes need not be asked
    guest = await context.cluster.find(text)
    if context.only and guest.node not in context.only:
        raise UsageError(f"{guest.name} is on {guest.node}, which --node leaves out")
    return guest


def titled(guest: Guest) -> str:
    """Name a guest and where it is: `web1 on ham1`."""
    return f"{guest.name} on {guest.node}"


def guest_document(guest: Guest) -> dict[str, Any]:
    """Name a guest for programs."""
    return {"name": guest.name, "uuid": guest.uuid, "node": guest.node}


def failure_document(exc: MinicloudError, name: str, node: str | None = None) -> dict[str, Any]:
    """Make one of the `errors` of a command's document.

    Args:
        exc: what went wrong.
        name: of the guest, as it was asked for.
        node: of the guest, where it was found.
    """
    failure: dict[str, Any] = {"guest": name, "node": node, "message": str(exc), "remedy": ""}
    match exc:
        case NodeError():
            failure |= {
                "reason": str(exc.reason), "message": exc.message, "remedy": exc.remedy,
            }  # fmt: skip
        case StorageError():
            failure["reason"] = f"storage-{exc.kind}"
        case _:
            failure["reason"] = "usage"
    return failure
