"""What a node answered: a value, or why there is none. One row a node, whatever happens."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from minicloud.errors import NodeError, Reason

__all__ = ["Row", "exit_status", "status_of_signal"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Row(Generic[T]):
    """One node's outcome: `value` is there where `error` is None.

    Attributes:
        node: its name.
        value: what it answered.
        error: why it did not.
        seconds: it took.
        note: a word on how it was had where that was not the usual way (`by virsh`).
    """

    node: str
    value: T | None = None
    error: NodeError | None = None
    seconds: float = 0.0
    note: str = ""

    @property
    def is_off(self) -> bool:
        """Whether the node is switched off, which is a normal state of a node."""
        return self.error is not None and self.error.reason is Reason.OFF


def exit_status(rows: Iterable[Row[T]]) -> int:
    """Sum up: 0 all answered, 1 some did, 2 none did (or there is none)."""
    outcomes = [row.error is None for row in rows]
    if not any(outcomes):
        return 2
    return 0 if all(outcomes) else 1


def status_of_signal(number: int) -> int:
    """Return the exit status by which a shell tells that a signal ended a program."""
    return 128 + number
