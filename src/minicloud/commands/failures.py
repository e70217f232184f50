"""The nodes that did not do what was asked, as every command tells of them."""

from collections.abc import Iterable
from typing import Any

from minicloud.model.outcome import Row

__all__ = ["failure_documents", "failure_lines"]


def failure_documents(rows: Iterable[Row[Any]]) -> list[dict[str, str]]:
    """Make the `errors` of a command's document."""
    return [
        {
            "node": row.node,
            "reason": str(row.error.reason),
            "message": row.error.message,
            "remedy": row.error.remedy,
        }
        for row in rows
        if row.error is not None
    ]


def failure_lines(rows: Iterable[Row[Any]]) -> list[str]:
    """Make a line a failure, for standard error."""
    return [f"{row.node}: {row.error}" for row in rows if row.error is not None]
