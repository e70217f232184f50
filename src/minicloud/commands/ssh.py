"""`minicloud ssh`: log in to a guest, or run a command there, jumping through its node.

The system's ssh does it, so keys, agent, ssh_config and escapes are what the operator knows. It is
found by what `minicloud ip` knows; it need not be reachable from here.
"""

import argparse
import shlex
from pathlib import Path
from typing import Any, Final

from minicloud.commands.child import require, run_child
from minicloud.commands.context import Context
from minicloud.commands.guests import add_guest, find_guest, guest_document, titled
from minicloud.commands.ip import silence
from minicloud.errors import UsageError
from minicloud.hypervisor.sightings import look_around
from minicloud.model.guest import Guest
from minicloud.model.view import Lines, Outcome
from minicloud.ssh.hostkeys import HostKeys
from minicloud.ssh.openssh import guest_argv, jump_argv, node_argv, parse_known_hosts

__all__ = ["CHANGES", "HELP", "add_arguments", "run"]

HELP: Final = "log in to a guest through its node, or run a command there"
CHANGES: Final = False

_INSTALL: Final = "install OpenSSH's client (Debian, Ubuntu: apt install openssh-client)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `ssh` alone takes."""
    add = parser.add_argument
    add_guest(parser)
    command = add(
        "command_line", nargs=argparse.PARSER, default=[], metavar="[CMD]",
        help="one word is a line for the guest's shell, several are a program and its arguments",
    )  # fmt: skip
    command.required = False  # REMAINDER would take `GUEST -l USER` for a command; ssh(1) does not
    add("-l", "--user", metavar="USER", help="in the guest (default ssh's own)")
    add("--address", metavar="IP", help="of the guest, instead of the one its node knows")
    add("-t", "--tty", action="store_true", help="give CMD a terminal")
    add(
        "-o", dest="options", action="append", default=[], metavar="OPTION",
        help="a further option for ssh, as in ssh_config; may be repeated",
    )  # fmt: skip
    add("--print", action="store_true", help="print the ssh command, do not run it")


async def run(context: Context, arguments: argparse.Namespace) -> Outcome:
    """Find the guest and log in."""
    words = arguments.command_line
    command = words[1:] if words[:1] == ["--"] else words
    if arguments.json and not command and not arguments.print:
        raise UsageError("--json needs a CMD, whose output it gathers, or --print")
    ssh = require("ssh", _INSTALL)
    context.report.step("asking for the guest")
    guest = await find_guest(context, arguments.guest)
    address = arguments.address or await _address(context, guest)
    jump = await _jump(ssh, context, guest)
    argv = guest_argv(
        ssh, jump, address=address, uuid=guest.uuid, known_hosts=_guests_keys(),
        ssh_config=context.inventory.ssh_config, user=arguments.user, options=arguments.options,
        wants_terminal=arguments.tty, command=command,
    )  # fmt: skip
    context.report.pause()
    document: dict[str, Any] = {
        "guest": guest_document(guest), "address": address, "argv": argv, "errors": [],
    }  # fmt: skip
    if arguments.print:
        return Outcome(document, [Lines((shlex.join(argv),))])
    ended = await run_child(argv, gather=arguments.json)
    document |= {
        "status": ended.status,
        "stdout": ended.stdout.decode(errors="replace"),
        "stderr": ended.stderr.decode(errors="replace"),
    }
    return Outcome(document, status=ended.status)


async def _address(context: Context, guest: Guest) -> str:
    """Find out the guest's best address.

    Raises:
        UsageError: nobody knows one.
    """
    if not guest.is_active:
        raise UsageError(f"{titled(guest)} is off; minicloud start starts it")
    hypervisor = await context.cluster.hypervisor(guest.node)
    session = await context.cluster.session(guest.node)
    sightings = await look_around(hypervisor, session, guest.uuid, only_first=True)
    if not sightings.addresses:
        raise UsageError(
            f"nobody knows an address of {titled(guest)}: {silence(sightings)}; "
            "give it one with --address, or look at minicloud console"
        )
    return sightings.addresses[0].address


async def _jump(ssh: str, context: Context, guest: Guest) -> list[str]:
    """Make the way through the guest's node, known by the files ssh itself would look into."""
    node = context.inventory.nodes[guest.node]
    to_node = node_argv(ssh, node, context.inventory.ssh_config)
    settings = await run_child([*to_node, "-G", "--", node.host], gather=True)
    users = parse_known_hosts(settings.stdout.decode(errors="replace"))
    return jump_argv(to_node, node, ours=HostKeys.of_environment().own, users=users)


def _guests_keys() -> Path:
    """Name the file of guests' host keys; ssh makes it, but not its folder."""
    own = HostKeys.of_environment().own
    own.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return own.with_name(f"{own.name}.guests")
