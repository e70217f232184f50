"""The terminal given away for a while: to a guest's console, or to a program of its own.

Keys come one by one and uncooked while it is raw; whatever ends that, it is put back as it was.
Nothing here waits on the loop's thread: a terminal that was stopped, or a pager that nobody reads,
must not keep the connections to the nodes from being heard.
"""

import asyncio
import contextlib
import functools
import os
import sys
import termios
import tty
from collections.abc import Iterator
from typing import IO, Any, Final

from minicloud.daemons import Daemons
from minicloud.render.output import printable

__all__ = ["StandardTerminal"]

_PIECE: Final = 1 << 12


class StandardTerminal:
    """Standard input and output, as `minicloud.commands.context.Terminal` wants them.

    Args:
        stdin: instead of standard input.
        stdout: instead of standard output.
    """

    def __init__(self, stdin: IO[Any] | None = None, stdout: IO[Any] | None = None) -> None:
        self._stdin = sys.stdin if stdin is None else stdin
        self._stdout = sys.stdout if stdout is None else stdout
        self._thread = Daemons("terminal", 1)  # nobody waits for a write that is stuck

    @property
    def is_interactive(self) -> bool:
        """Whether somebody types."""
        return self._stdin.isatty()

    def say(self, line: str) -> None:
        """Tell something before the command has come to its end, on standard error."""
        sys.stderr.write(f"{printable(line)}\n")
        sys.stderr.flush()

    def show(self, line: str) -> None:
        """Print a result before the command has come to its end, on standard output."""
        self._stdout.write(f"{printable(line)}\n")
        self._stdout.flush()

    @contextlib.contextmanager
    def raw(self) -> Iterator[None]:
        """Have every key as it is, ^C too; does nothing where nobody types."""
        if not self.is_interactive:
            yield
            return
        place = self._stdin.fileno()
        before = termios.tcgetattr(place)
        tty.setraw(place, termios.TCSANOW)
        try:
            yield
        finally:
            # draining would wait for a terminal that was stopped; what was typed beyond the end
            # was meant for the guest, and must not reach the shell
            termios.tcsetattr(place, termios.TCSANOW, before)
            termios.tcflush(place, termios.TCIFLUSH)

    async def read(self) -> bytes:
        """Wait for keys; b"" at the end of standard input."""
        loop = asyncio.get_running_loop()
        typed: asyncio.Future[bytes] = loop.create_future()
        place = self._stdin.fileno()

        def readable() -> None:
            if not typed.done():
                typed.set_result(_read(place))

        loop.add_reader(place, readable)
        try:
            return await typed
        finally:
            loop.remove_reader(place)

    async def write(self, data: bytes) -> None:
        """Print bytes as they are, and wait until they have been taken.

        Raises:
            OSError: nobody reads any more.
        """
        await self._thread.submit(functools.partial(_write, self._stdout.fileno(), data))


def _read(place: int) -> bytes:
    try:
        return os.read(place, _PIECE)
    except OSError:  # the terminal was hung up
        return b""


def _write(place: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(place, view) :]
