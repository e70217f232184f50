"""`minicloud start`: guests that are defined and off."""

import argparse
import contextlib
from typing import Final

from minicloud.commands.context import Context
from minicloud.commands.deeds import Deed, do_to_guests
from minicloud.commands.exports import export_trouble, guest_exports
from minicloud.commands.guests import add_guests
from minicloud.errors import StorageError, UsageError
from minicloud.hypervisor import power
from minicloud.model.guest import Guest, GuestState
from minicloud.model.view import Outcome

__all__ = ["CHANGES", "HELP", "add_arguments", "is_to_start", "run"]

HELP: Final = "start guests that are off"
CHANGES: Final = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `start` alone takes."""
    add_guests(parser)


async def run(context: Context, arguments: argparse.Namespace) -> Outcome:
    """Start them, unless somebody else has a guest's disk."""
    context.report.step("starting")

    async def doing(guest: Guest) -> Deed:
        if not is_to_start(guest):
            return Deed("nothing", "runs already")
        await _check_exports(context, guest)
        if context.dry_run:
            return Deed("nothing", "would be started")
        await power.start(await context.cluster.hypervisor(guest.node), guest.uuid)
        return Deed("started", "started")

    return await do_to_guests(context, arguments.guests, doing)


def is_to_start(guest: Guest) -> bool:
    """Tell whether a guest is off; False if it runs.

    Raises:
        UsageError: it is neither.
    """
    if guest.state in (GuestState.PAUSED, GuestState.SUSPENDED):
        why = f" ({guest.reason})" if guest.reason else ""
        raise UsageError(f"is {guest.state}{why}, not off; minicloud resume lets it go on")
    return not guest.is_active


async def _check_exports(context: Context, guest: Guest) -> None:
    """Raise StorageError if the guest's exports are not there for it alone."""
    exports = None
    with contextlib.suppress(StorageError):  # whether they can be reached is for qemu to find out
        exports = await guest_exports(context, guest)
    if exports is not None and guest.origin is not None:
        trouble = export_trouble(guest.origin, exports, may_be_in_use=False)
        if trouble is not None:
            raise trouble
