"""`minicloud viewer`: a guest's screen in virt-viewer, through the ssh connection to its node.

The display listens on the node's loopback, so whoever may log in there may see it. Here it is a
port of 127.0.0.1 while the viewer runs, open to whoever is logged in to this machine.
"""

import argparse
import asyncio
from typing import Any, Final

from minicloud.commands.child import require, run_child
from minicloud.commands.context import Context
from minicloud.commands.guests import add_guest, find_guest, guest_document, titled
from minicloud.domain.devices import Devices, Display
from minicloud.errors import UsageError
from minicloud.hypervisor.inside import look_inside
from minicloud.model.guest import Guest
from minicloud.model.view import Outcome

__all__ = ["CHANGES", "HELP", "add_arguments", "choose_display", "run"]

HELP: Final = "a guest's screen, in virt-viewer"
CHANGES: Final = False

_VIEWER: Final = "remote-viewer"  # virt-viewer's program for a display whose address is known
_INSTALL: Final = (
    "install virt-viewer (Debian, Ubuntu: apt install virt-viewer; Fedora, RHEL: dnf install "
    "virt-viewer), or take another viewer with --print"
)
_ANY: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- read, not bound


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `viewer` alone takes."""
    add_guest(parser)
    parser.add_argument(
        "--print", action="store_true",
        help="print the display's address and keep the way open until interrupted",
    )  # fmt: skip


async def run(context: Context, arguments: argparse.Namespace) -> Outcome:
    """Open the way to the display, and a viewer on it."""
    if arguments.print and arguments.json:
        raise UsageError("--print shows the way while it is open, --json what there is: choose one")
    program = "" if arguments.print or arguments.json else require(_VIEWER, _INSTALL)
    context.report.step("asking for the guest")
    guest = await find_guest(context, arguments.guest)
    if not guest.is_active:
        raise UsageError(f"{titled(guest)} is off; minicloud start starts it")
    hypervisor = await context.cluster.hypervisor(guest.node)
    inside = await hypervisor.call(look_inside(guest.uuid))
    display = choose_display(inside.devices, titled(guest))
    if arguments.json:
        return Outcome(_document(guest, display) | {"errors": []})
    assert display.port is not None
    session = await context.cluster.session(guest.node)
    port = await session.forward_port(display.host, display.port)
    uri = f"{display.kind}://127.0.0.1:{port}"
    context.report.pause()
    if arguments.print:
        context.terminal.show(uri)
        context.terminal.say(f"{uri} leads to {titled(guest)} until ^C")
        await _until_over(context.timeout)
        return Outcome(_document(guest, display) | {"uri": uri, "errors": []})
    ended = await run_child([program, f"--title={guest.name}", uri])
    return Outcome(_document(guest, display) | {"errors": []}, status=ended.status)


def choose_display(devices: Devices, title: str) -> Display:
    """Choose the display to show: the first that has a port of its own.

    Returns:
        It, with the address to reach it by on its node.

    Raises:
        UsageError: there is none, or none that can be shown.
    """
    for display in devices.displays:
        if display.port is not None:
            return Display(
                kind=display.kind,
                host=_ANY.get(display.host, display.host),
                port=display.port,
                tls_port=display.tls_port,
                socket=display.socket,
            )
    if any(display.socket for display in devices.displays):
        raise UsageError(f"the display of {title} listens on a Unix socket alone, not on a port")
    if any(display.tls_port for display in devices.displays):
        raise UsageError(
            f"the display of {title} takes TLS alone, for which a viewer must know its node's name"
        )
    raise UsageError(f"{title} has no display; minicloud console shows its serial line")


async def _until_over(seconds: float | None) -> None:
    """Wait for the end of the command's time, or for ever: ^C ends it."""
    await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=seconds)


def _document(guest: Guest, display: Display) -> dict[str, Any]:
    return {
        "guest": guest_document(guest),
        "display": {"kind": display.kind, "host": display.host, "port": display.port},
    }
