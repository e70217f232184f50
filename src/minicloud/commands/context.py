"""What every command is given."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from minicloud.cluster import Cluster
from minicloud.model.inventory import Inventory
from minicloud.storage.service import Storage

__all__ = ["Context", "Reporter"]


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
    """

    inventory: Inventory
    cluster: Cluster
    storage: Storage
    only: tuple[str, ...]
    dry_run: bool
    timeout: float | None
    report: Reporter
    ask: Callable[[str], Awaitable[bool]]
