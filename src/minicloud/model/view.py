"""What a command has to show: tables and lines as values, which the renderer prints.

A command returns one `Outcome`; `--json` prints its document, everything else its views. So every
command is tested without a terminal, and nothing but the renderer knows of colours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Lines", "Outcome", "Table", "View"]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells beneath names of columns.

    Attributes:
        columns: their names, lower case.
        rows: of as many cells each; what is not known is "-".
        right: names of the columns whose cells are numbers.
        title: above it on a terminal, or "".
    """

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    right: frozenset[str] = frozenset()
    title: str = ""


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines of text, as they are."""

    lines: tuple[str, ...]


View = Table | Lines


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a command.

    Attributes:
        document: for `--json`: one object; a failing node is in its `errors`, a list of
            {"node", "reason", "message", "remedy"}.
        views: for people, in order.
        errors: lines for standard error, one a failure.
        status: 0 all, 1 partial, 2 none or usage.
        is_interrupted: a signal ended it before it had done all; its status is the signal's then.
    """

    document: Mapping[str, Any]
    views: Sequence[View] = ()
    errors: Sequence[str] = field(default_factory=tuple)
    status: int = 0
    is_interrupted: bool = False
