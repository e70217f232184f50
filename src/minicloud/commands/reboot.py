"""`minicloud reboot`: asks a guest to start anew, and resets it after a time."""

import argparse
from typing import Final

from minicloud.commands.context import Context
from minicloud.commands.deeds import Deed, do_to_guests
from minicloud.commands.guests import add_guests
from minicloud.commands.patience import add_patience, grace_of, refuse_deaf
from minicloud.errors import NodeError, Reason, UsageError
from minicloud.hypervisor import power
from minicloud.hypervisor.events import start_events
from minicloud.model.guest import Guest
from minicloud.model.view import Outcome

__all__ = ["CHANGES", "HELP", "add_arguments", "rebooted_deed", "run"]

HELP: Final = "start guests anew: ask first, reset after a time"
CHANGES: Final = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `reboot` alone takes."""
    add_guests(parser)
    add_patience(parser, "reset")


async def run(context: Context, arguments: argparse.Namespace) -> Outcome:
    """Reboot them, all at once."""
    grace = grace_of(arguments.grace, context.timeout, now=arguments.now)
    start_events()
    context.report.step("waiting for the guests to start anew")

    async def doing(guest: Guest) -> Deed:
        if not guest.is_active:
            raise UsageError("is off; minicloud start starts it")
        refuse_deaf(guest)
        if context.dry_run:
            return Deed("nothing", _intention(grace))
        hypervisor = await context.cluster.hypervisor(guest.node)
        rebooted = await power.reboot(hypervisor, guest.uuid, asking=arguments.mode, grace=grace)
        return rebooted_deed(rebooted, grace)

    return await do_to_guests(context, arguments.guests, doing)


def rebooted_deed(rebooted: power.Rebooted, grace: float) -> Deed:
    """Say how a guest came to start anew.

    Raises:
        NodeError: it stopped instead.
    """
    if rebooted.is_off:
        raise NodeError(
            Reason.LIBVIRT, "stopped instead of starting anew", "minicloud start starts it"
        )
    text = f"started anew after {rebooted.seconds:.1f} s"
    if rebooted.was_forced:
        text = "reset" if grace == 0 else f"did not start anew in {grace:g} s: reset"
    return Deed("reset" if rebooted.was_forced else "rebooted", text, rebooted.seconds)


def _intention(grace: float) -> str:
    if grace == 0:
        return "would be reset at once"
    return f"would be asked to start anew, and reset after {grace:g} s"
