"""`minicloud console`: a guest's serial console on this terminal, until ^] or the guest's end.

Without a terminal it prints what the guest says; with --json it gathers that into the document.
The console is the node's, through libvirt: it works for a guest without network, and from the first
line of the boot loader on. A serial line knows nothing of windows, so a window that is resized
changes nothing in the guest (there: `stty rows 50 cols 160`).
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from minicloud.commands.context import Context, Terminal
from minicloud.commands.guests import add_guest, find_guest, guest_document, titled
from minicloud.errors import UsageError
from minicloud.hypervisor.console import Console
from minicloud.hypervisor.events import start_events
from minicloud.model.guest import Guest
from minicloud.model.view import Outcome

__all__ = ["CHANGES", "HELP", "add_arguments", "parse_escape", "run", "until_escape"]

HELP: Final = "a guest's serial console; ^] ends it"
CHANGES: Final = False

_ESCAPE: Final = b"\x1d"  # ^], as telnet and virsh have it
_MOST: Final = 1 << 20  # bytes of the console a document holds: the last ones

Write = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Ended:
    """How a console ended.

    Attributes:
        why: `escape`, `off`, `closed` or `time`.
        text: for people.
        status: to exit with.
    """

    why: str
    text: str
    status: int = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `console` alone takes."""
    add_guest(parser)
    parser.add_argument(
        "--force", action="store_true", help="take the console away from whoever has it"
    )
    parser.add_argument(
        "--escape", type=parse_escape, default=_ESCAPE, metavar="KEY",
        help="the key that ends it, e.g. ^] (default) or ^A",
    )  # fmt: skip


async def run(context: Context, arguments: argparse.Namespace) -> Outcome:
    """Join the guest's console and the terminal."""
    start_events()
    context.report.step("asking for the guest")
    guest = await find_guest(context, arguments.guest)
    if not guest.is_active:
        raise UsageError(f"{titled(guest)} is off; minicloud start starts it")
    hypervisor = await context.cluster.hypervisor(guest.node)
    terminal = context.terminal
    said = bytearray()

    async def keep(data: bytes) -> None:
        said.extend(data)
        del said[:-_MOST]

    is_typed = terminal.is_interactive and not arguments.json
    async with Console(hypervisor, guest.uuid, force=arguments.force) as console:
        context.report.pause()
        if is_typed:
            terminal.say(f"console of {titled(guest)}; {_named(arguments.escape)} ends it")
        write = keep if arguments.json else terminal.write
        ended = await _join(
            console, write, terminal if is_typed else None, arguments.escape, context.timeout
        )
        if is_typed:
            terminal.say("")  # the guest's line is not ours to go on with
    return _outcome(guest, ended, said if arguments.json else None)


async def _join(
    console: Console, write: Write, typing: Terminal | None, escape: bytes, seconds: float | None
) -> _Ended:
    """Carry bytes both ways until one side ends."""
    jobs = [asyncio.create_task(_print(console, write), name="console output")]
    if typing is not None:
        jobs.append(asyncio.create_task(_type(console, typing, escape), name="console input"))
    try:
        done, _ = await asyncio.wait(jobs, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            return _Ended("time", f"{seconds:g} s are over")
        return done.pop().result()
    finally:
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)


async def _print(console: Console, write: Write) -> _Ended:
    while data := await console.read():
        try:
            await write(data)
        except OSError:
            return _Ended("closed", "nobody reads it any more", 1)
    if (await console.last()).is_off:
        return _Ended("off", "the guest is off")
    return _Ended("closed", "it was taken over by somebody else, or closed on the node", 1)


async def _type(console: Console, terminal: Terminal, escape: bytes) -> _Ended:
    with terminal.raw():
        while data := await terminal.read():
            keys, is_over = until_escape(data, escape)
            if keys:
                await console.write(keys)
            if is_over:
                return _Ended("escape", "left; the guest goes on")
    return _Ended("escape", "the terminal is gone")


def until_escape(data: bytes, escape: bytes) -> tuple[bytes, bool]:
    """Split what was typed: keys for the guest, and whether the escape key came after them."""
    keys, found, _ = data.partition(escape)
    return keys, bool(found)


def parse_escape(text: str) -> bytes:
    """Read `^]` and the like, as stty writes control characters.

    Raises:
        argparse.ArgumentTypeError: it is no control character.
    """
    if len(text) == 2 and text[0] == "^" and "@" <= text[1].upper() <= "_":
        return bytes([ord(text[1].upper()) ^ 0x40])
    raise argparse.ArgumentTypeError(f"{text!r} is no control key; write e.g. ^] or ^A")


def _named(escape: bytes) -> str:
    return f"^{chr(escape[0] ^ 0x40)}"


def _outcome(guest: Guest, ended: _Ended, said: bytearray | None) -> Outcome:
    text = f"console of {titled(guest)}: {ended.text}"
    document = {"guest": guest_document(guest), "ended": ended.why, "errors": []}
    if said is not None:
        document["output"] = said.decode(errors="replace")
    return Outcome(document, errors=(text,), status=ended.status)
