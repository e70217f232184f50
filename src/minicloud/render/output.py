"""Printing an outcome: rich tables on a terminal, plain columns in a pipe, or one JSON document.

In a pipe a table is one line a row, cells apart by two blanks or more and never cut, so that awk
and grep work; on a terminal it fits the width. What nodes and guests call themselves is printed
without control characters.
"""

import json
import sys
from collections.abc import Sequence
from typing import Final, TextIO

from minicloud.model.view import Lines, Outcome, Table, View

__all__ = ["clear", "print_outcome", "printable"]

_GAP: Final = "  "
_LEGIBLE: Final = 12  # characters; a cell that is folded to fewer can hardly be read
_STYLES: Final = {
    "on": "green", "running": "green", "off": "dim", "shut off": "dim", "paused": "yellow",
    "crashed": "red",
}  # fmt: skip


def print_outcome(outcome: Outcome, *, as_json: bool, out: TextIO | None = None) -> None:
    """Print what came of a command; errors go to standard error.

    Args:
        outcome: of the command.
        as_json: its document, one JSON object, instead of its views and errors.
        out: instead of standard output.
    """
    out = sys.stdout if out is None else out
    if as_json:
        json.dump(outcome.document, out, indent=2, default=str)
        out.write("\n")
    else:
        for view in outcome.views:
            out.write(_text(view)) if not out.isatty() else _show(view, out)
    out.flush()
    if not as_json:
        for line in outcome.errors:
            sys.stderr.write(f"minicloud: {printable(line)}\n")


def clear() -> None:
    """Empty the terminal that standard output is; anything else is left as it is."""
    if sys.stdout.isatty():
        from rich.console import Console  # noqa: PLC0415 -- see _show

        Console(file=sys.stdout).clear()


def printable(text: str) -> str:
    """Replace what would steer a terminal; one line."""
    return "".join(char if char.isprintable() else "?" for char in text.replace("\n", " "))


def _text(view: View) -> str:
    match view:
        case Lines(lines):
            return "".join(f"{line}\n" for line in lines)
        case Table():
            return _columns(view)


def _columns(table: Table) -> str:
    rows = [tuple(name.upper() for name in table.columns), *map(_cells, table.rows)]
    widths = _widths(table)
    right = [name in table.right for name in table.columns]
    return "".join(
        _GAP.join(
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(row, widths, right, strict=True)
        ).rstrip()
        + "\n"
        for row in rows
    )


def _widths(table: Table) -> list[int]:
    """Return the width of each column's widest cell."""
    rows = [table.columns, *map(_cells, table.rows)]
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def _cells(row: Sequence[str]) -> tuple[str, ...]:
    return tuple(printable(cell) or "-" for cell in row)


def _show(view: View, out: TextIO) -> None:
    # a tenth of a command's start, and nothing to a pipe
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table as RichTable  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(file=out, highlight=False)
    if isinstance(view, Lines):
        for line in view.lines:
            console.print(Text(printable(line)), soft_wrap=True)
        return
    widths = [min(width, _LEGIBLE) for width in _widths(view)]
    if sum(widths) + len(_GAP) * (len(widths) - 1) > console.width:
        out.write(_columns(view))  # the terminal's own wrapping is easier to read than slivers
        return
    made = RichTable(title=view.title or None, box=None, pad_edge=False, header_style="bold")
    for name, width in zip(view.columns, widths, strict=True):
        made.add_column(
            name, justify="right" if name in view.right else "left", overflow="fold",
            min_width=width,
        )  # fmt: skip
    for row in view.rows:
        made.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in _cells(row)))
    console.print(made)
