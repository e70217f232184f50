"""Making certain that a node which does not answer is dead: its guests must not run twice.

A node that is cut off looks like one that is off, and its guests may run on. Only somebody who sees
it, or a switch for its power, can tell.
"""

import argparse
import asyncio
import contextlib
import os
from typing import Final

from minicloud.commands.context import Context
from minicloud.errors import NodeError, Reason, UsageError

__all__ = ["add_fencing", "fence"]

_FENCING: Final = 60.0  # seconds a fence command has


def add_fencing(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--fenced", action="store_true", help="the node is off for certain: do not ask"
    )
    parser.add_argument(
        "--fence-command", metavar="COMMAND",
        help="run this here first, by sh, with the node's name in MINICLOUD_NODE; exit status 0 "
        "says that the node is off",
    )  # fmt: skip


async def fence(
    context: Context, arguments: argparse.Namespace, name: str, guests: int, *, seen: str = ""
) -> None:
    """Have it made certain that a node is off.

    Args:
        context: of the run.
        arguments: with the options of `add_fencing`.
        name: of the node.
        guests: that are to be started elsewhere.
        seen: why it does not answer; a node that is up and has no sshd may run its guests.

    Raises:
        NodeError: the command failed.
        UsageError: nobody said that it is off.
    """
    if arguments.fence_command is not None:
        context.report.step(f"fencing {name}")
        await _run(arguments.fence_command, name)
        return
    if arguments.fenced:
        return
    what = "its guest" if guests == 1 else f"its {guests} guests"
    reason = f"{name}: {seen}. " if seen else ""
    if not await context.ask(
        f"{reason}Is {name} really off? If it only cannot be reached, {what} would run twice. "
        "Start them elsewhere?"
    ):
        raise UsageError(
            f"nothing was started: make certain that {name} is off, then say --fenced, or give a "
            "--fence-command that switches it off"
        )


async def _run(command: str, name: str) -> None:
    process = await asyncio.create_subprocess_shell(
        command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "MINICLOUD_NODE": name},
    )
    try:
        async with asyncio.timeout(_FENCING):
            _, said = await process.communicate()
    except TimeoutError:
        raise NodeError(
            Reason.COMMAND, f"the fence command was not done after {_FENCING:g} s", "run it by hand"
        ) from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    if process.returncode:
        words = " ".join(said.decode(errors="replace").split())
        raise NodeError(
            Reason.COMMAND,
            f"the fence command failed with status {process.returncode}: {words}".rstrip(": "),
            "nothing was started",
        )
