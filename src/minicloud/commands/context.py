"""What every command is given."""

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from minicloud.cluster import Cluster
from minicloud.model.inventory import Inventory
from minicloud.storage.service import Storage

__all__ = ["Context", "Reporter", "Terminal"]


class Reporter(Protocol):
    """Tells the operator how a long step goes on; says nothing where nobody watches."""

    def step(self, text: str) -> None:
        """Say what is being done from now on, e.g. `waiting for ham1 to answer`."""

    def progress(self, done: int, total: int, unit: str = "B") -> None:
        """Say how far the step has come."""

    def tick(self) -> None:
        """Show the step if it has been going on for long."""

    def pause(self) -> None:
        """Leave the terminal to somebody else: a question, a console."""


class Terminal(Protocol):
    """Where the operator sits, for what cannot wait for the command's end."""

    @property
    def is_interactive(self) -> bool:
        """Whether somebody types."""

    def say(self, line: str) -> None:
        """Tell something now, beside the result."""

    def show(self, line: str) -> None:
        """Print a line of the result now."""

    def raw(self) -> contextlib.AbstractContextManager[None]:
        """Have every key as it is."""

    async def read(self) -> bytes:
        """Wait for keys; b"" when there will be none any more."""

    async def write(self, data: bytes) -> None:
        """Print bytes as they are; OSError where nobody reads them any more."""


@dataclass(frozen=True, slots=True)
class Context:
    """The run of one command.

    Attributes:
        inventory: what the operator wrote.
        cluster: its nodes, connected when they are asked for.
        storage: the export server, likewise.
        only: names of the nodes that `--node` chose; empty is all.
        dry_run: change nothing, say what would be.
        timeout: seconds for the whole command, or None for the command's own.
        report: progress.
        ask: puts a yes-or-no question to the operator; False where there is none to ask.
        terminal: the operator's, for a console or a program of its own.
    """

    inventory: Inventory
    cluster: Cluster
    storage: Storage
    only: tuple[str, ...]
    dry_run: bool
    timeout: float | None
    report: Reporter
    ask: Callable[[str], Awaitable[bool]]
    terminal: Terminal
