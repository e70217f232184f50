"""A program of this machine that has the terminal while it runs: ssh, a viewer.

It is no daemon: it ends with the command, and the command with it.
"""

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from minicloud.errors import NodeError, Reason
from minicloud.model.outcome import status_of_signal

__all__ = ["Ended", "require", "run_child"]

_GRACE: Final = 2.0  # seconds to end when asked to


@dataclass(frozen=True, slots=True)
class Ended:
    """How it ended.

    Attributes:
        status: as a shell has it.
        stdout: what it said, where that was gathered.
        stderr: likewise.
    """

    status: int
    stdout: bytes = b""
    stderr: bytes = b""


def require(program: str, install: str) -> str:
    """Return the path of a program.

    Args:
        program: its name.
        install: how to come by it, for the error.

    Raises:
        NodeError: it is not there.
    """
    path = shutil.which(program)
    if path is None:
        raise NodeError(Reason.TOOL, f"{program} is not on this machine", install)
    return path


async def run_child(argv: Sequence[str], *, gather: bool = False) -> Ended:
    """Run a program on this terminal, or gather what it says, and wait for its end.

    Args:
        argv: no shell reads it.
        gather: its output is kept and it gets no input.
    """
    pipe = asyncio.subprocess.PIPE if gather else None
    stdin = asyncio.subprocess.DEVNULL if gather else None
    child = await asyncio.create_subprocess_exec(*argv, stdin=stdin, stdout=pipe, stderr=pipe)
    try:
        out, err = await child.communicate()
    except asyncio.CancelledError:
        await _end(child)
        raise
    status = child.returncode or 0
    return Ended(status if status >= 0 else status_of_signal(-status), out or b"", err or b"")


async def _end(child: asyncio.subprocess.Process) -> None:
    if child.returncode is not None:
        return
    child.terminate()
    try:
        async with asyncio.timeout(_GRACE):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()
