"""`minicloud stop`: asks a guest to stop, and forces it after a time."""

import argparse
from typing import Final

from minicloud.commands.context import Context
from minicloud.commands.deeds import Deed, do_to_guests
from minicloud.commands.guests import add_guests
from minicloud.commands.patience import add_patience, grace_of, refuse_deaf
from minicloud.hypervisor import power
from minicloud.hypervisor.events import start_events
from minicloud.model.guest import Guest, GuestKind
from minicloud.model.view import Outcome

__all__ = ["CHANGES", "HELP", "add_arguments", "run", "stopped_deed"]

HELP: Final = "stop guests: ask first, force after a time"
CHANGES: Final = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `stop` alone takes."""
    add_guests(parser)
    add_patience(parser, "switched off")


async def run(context: Context, arguments: argparse.Namespace) -> Outcome:
    """Stop them, all at once."""
    grace = grace_of(arguments.grace, context.timeout, now=arguments.now)
    start_events()
    context.report.step("waiting for the guests to stop")

    async def doing(guest: Guest) -> Deed:
        if not guest.is_active:
            return Deed("nothing", "is off already")
        if grace > 0:
            refuse_deaf(guest)
        if context.dry_run:
            return Deed("nothing", _intention(grace))
        hypervisor = await context.cluster.hypervisor(guest.node)
        stopped = await power.stop(hypervisor, guest.uuid, asking=arguments.mode, grace=grace)
        return stopped_deed(guest, stopped, grace)

    return await do_to_guests(context, arguments.guests, doing)


def stopped_deed(guest: Guest, stopped: power.Stopped, grace: float) -> Deed:
    """Say how a guest came to be off, and what is left of it."""
    text = f"off after {stopped.seconds:.1f} s"
    if stopped.was_forced:
        text = "switched off" if grace == 0 else f"did not stop in {grace:g} s: switched off"
    if not stopped.is_there:
        is_cattle = guest.origin is not None and guest.origin.kind is GuestKind.CATTLE
        text += "; it was cattle and is gone, minicloud gc frees its disk" if is_cattle else (
            "; it was transient and is gone"
        )  # fmt: skip
    return Deed("forced" if stopped.was_forced else "stopped", text, stopped.seconds)


def _intention(grace: float) -> str:
    if grace == 0:
        return "would be switched off at once"
    return f"would be asked to stop, and switched off after {grace:g} s"
