"""How a guest is asked, and how long it is waited for, before it is forced."""

import argparse
from typing import Final

from minicloud.commands.values import typed
from minicloud.errors import UsageError
from minicloud.hypervisor.power import Asking
from minicloud.model.guest import Guest, GuestState
from nbdserve.params import DURATION

__all__ = ["add_patience", "grace_of", "refuse_deaf"]

_GRACE: Final = 60.0  # seconds; systemd gives a service 90, most guests need 5
_FORCING: Final = 15.0  # seconds left of --timeout for forcing a guest and saying so


def add_patience(parser: argparse.ArgumentParser, forced: str) -> None:
    """Add the options.

    Args:
        parser: of the command.
        forced: what is done in the end, for the help.
    """
    parser.add_argument(
        "--grace", type=typed(DURATION.parse), metavar="TIME",
        help=f"how long to wait before a guest is {forced} (default {_GRACE:g}s)",
    )  # fmt: skip
    parser.add_argument("--now", action="store_true", help=f"ask nothing: it is {forced} at once")
    parser.add_argument(
        "--mode", type=Asking, choices=list(Asking), default=Asking.AUTO, metavar="MODE",
        help="how to ask: acpi (the power button), guest-agent, or auto (default): the agent where "
        "one is connected, else the button",
    )  # fmt: skip


def grace_of(grace: float | None, timeout: float | None, *, now: bool) -> float:
    """Decide how many seconds a guest has before it is forced.

    Args:
        grace: as asked for, or None.
        timeout: for the whole command, or None.
        now: whether it is to be forced at once.

    Raises:
        UsageError: they contradict each other.
    """
    if now:
        if grace:
            raise UsageError("--now and --grace contradict each other")
        return 0.0
    if timeout is None:
        return _GRACE if grace is None else grace
    if grace is None:
        return max(timeout / 2, min(_GRACE, timeout - _FORCING))
    if grace > timeout:
        raise UsageError(f"--grace {grace:g}s does not fit into --timeout {timeout:g}s")
    return grace


def refuse_deaf(guest: Guest) -> None:
    """Raise UsageError for a guest that cannot hear what it is asked, since it does not run."""
    if guest.state in (GuestState.PAUSED, GuestState.SUSPENDED):
        why = f" ({guest.reason})" if guest.reason else ""
        raise UsageError(
            f"is {guest.state}{why} and cannot hear that; minicloud resume it first, or use --now"
        )
