"""The table of docs/how-to/cluster-errors.md, as patterns for the lines it promises."""

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LAB_ALONE", "Promise", "promises"]

_PAGE = Path(__file__).parents[2] / "docs/how-to/cluster-errors.md"
_ROW = re.compile(r"^\| `([\w-]+)` \|(?: (`+) ?(.+?) ?\2 \|| \|)", re.MULTILINE)
_PLACES = {
    "text": ".+",
    "time": r"[\d.]+ s",
    "port": r"\d+",
    "line": r"\d+",
    "key": r"[\w-]+ SHA256:\S+",
}

LAB_ALONE = frozenset({("libvirtd-hung", "did not answer")})
"""What takes a real libvirtd: a reason, and words of its line."""


@dataclass(frozen=True, slots=True)
class Promise:
    """A line of the table.

    Attributes:
        reason: its first cell.
        text: its second cell, with `<places>`.
    """

    reason: str
    text: str

    def is_kept_by(self, line):
        """Whether a line of `status`, after the node's name, is this one."""
        pattern = "".join(
            _PLACES.get(part[1:-1], r"\S+") if part.startswith("<") else re.escape(part)
            for part in re.split(r"(<\w+>)", self.text)
        )
        whole = re.escape(self.reason) + (f": {pattern}" if pattern else "")
        return re.fullmatch(whole, line) is not None


def promises():
    """Return all of the table."""
    return [Promise(reason, text or "") for reason, _, text in _ROW.findall(_PAGE.read_text())]
