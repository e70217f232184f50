"""`minicloud resume`: lets a paused guest go on, once what it was paused for is mended.

A guest whose disk failed was paused by qemu (`error_policy=stop`) with its requests still open; on
resume they are made again. So the export is looked at first, and the guest afterwards: one that
pauses again at once has not been helped.
"""

import argparse
from collections.abc import Mapping
from typing import Final

from minicloud.commands.context import Context
from minicloud.commands.deeds import Deed, do_to_guests
from minicloud.commands.exports import export_trouble, guest_exports
from minicloud.commands.guests import add_guests
from minicloud.commands.values import typed
from minicloud.errors import NodeError, Reason, StorageError, UsageError
from minicloud.hypervisor import power
from minicloud.hypervisor.events import start_events
from minicloud.hypervisor.power import NO_SPACE
from minicloud.model.guest import Guest, GuestState
from minicloud.model.view import Outcome
from nbdserve.params import DURATION

__all__ = ["CHANGES", "HELP", "add_arguments", "remedy_for", "run", "why_paused"]

HELP: Final = "let paused guests go on, once their disks are served again"
CHANGES: Final = True

_SAYING: Final = 3.0  # seconds of --timeout left for saying what came of it
_PROOF: Final = 1.0  # seconds; a request that fails again does so within one round trip
_PATIENCE: Final = 20.0  # seconds; qemu may take 16 before it tries to reach its disk again
_IO_ERROR: Final = "I/O error"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `resume` alone takes."""
    add_guests(parser)
    parser.add_argument(
        "--patience", type=typed(DURATION.parse), default=_PATIENCE, metavar="TIME",
        help=f"how long a guest that pauses again is resumed again (default {_PATIENCE:g}s): qemu "
        "takes up to 16s to reach a disk again that was away",
    )  # fmt: skip


async def run(context: Context, arguments: argparse.Namespace) -> Outcome:
    """Resume them, all at once."""
    start_events()
    context.report.step("looking at the guests and their disks")

    async def doing(guest: Guest) -> Deed:
        if guest.state not in (GuestState.PAUSED, GuestState.SUSPENDED):
            if not guest.is_active:
                raise UsageError("is off; minicloud start starts it")
            return Deed("nothing", "is not paused")
        hypervisor = await context.cluster.hypervisor(guest.node)
        before = await hypervisor.call(power.look(guest.uuid))
        why = why_paused(before.reason, before.faults)
        served = await _served(context, guest) if before.reason == _IO_ERROR else ""
        if context.dry_run:
            return Deed("nothing", f"{why}{served}; would be resumed")
        patience = arguments.patience
        if context.timeout is not None:
            patience = min(patience, context.timeout - _SAYING)
        resumed = await power.resume(hypervisor, guest.uuid, proof=_PROOF, patience=patience)
        after = resumed.power
        if after.state in (GuestState.PAUSED, GuestState.SUSPENDED) or after.is_off:
            raise NodeError(
                Reason.LIBVIRT, f"{why}{served}; resumed, it is {after.state} again",
                remedy_for(after.faults),
            )  # fmt: skip
        return Deed("resumed", f"{why}{served}; goes on")

    return await do_to_guests(context, arguments.guests, doing)


def why_paused(reason: str, faults: Mapping[str, str]) -> str:
    """Say why a guest was paused: `was paused: I/O error (vda: no space)`."""
    disks = ", ".join(f"{disk}: {fault}" for disk, fault in faults.items() if fault != reason)
    named = disks or ", ".join(faults)
    return f"was paused: {reason or 'for no reason given'}{f' ({named})' if named else ''}"


def remedy_for(faults: Mapping[str, str]) -> str:
    """Say what to do for a guest that pauses again."""
    if NO_SPACE in faults.values():
        return "make room where the export server keeps its overlays, and resume it once more"
    return "see whether its node reaches the export server: minicloud doctor"


async def _served(context: Context, guest: Guest) -> str:
    """Say whether the guest's exports are served again.

    Raises:
        StorageError: they are not; resumed, it would pause again.
    """
    try:
        exports = await guest_exports(context, guest)
    except StorageError as exc:
        return f"; whether its export is served is not known ({exc})"
    if exports is None or guest.origin is None:
        return ""
    trouble = export_trouble(guest.origin, exports, may_be_in_use=True)
    if trouble is not None:
        raise StorageError(trouble.kind, f"was paused: {_IO_ERROR}; {trouble}")
    return f"; its export {guest.origin.export} is served"
