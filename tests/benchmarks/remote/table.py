"""The table: one line a row, its median, beside the limit, nbdkit and an earlier run. Pure."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from remote.plan import LOCAL, Row
from remote.trial import Sample

__all__ = ["HEAD", "Figures", "lines"]

HEAD = [
    "link", "image", "work", "server", "time", "/limit", "/nbdkit", "/tuned", "before", "requests",
    "MB", "a block", "/need", "CPU s", "RSS MiB", "trips",
]  # fmt: skip

_MISSING = "-"


@dataclass(slots=True)
class Figures:
    """What was found of one row.

    Attributes:
        samples: one a round.
        limit: seconds; 0 where there is none.
        before: the median of an earlier run, seconds; 0 if there is none.
        failure: why there is no sample.
    """

    samples: list[Sample] = field(default_factory=list)
    limit: float = 0.0
    before: float = 0.0
    failure: str = ""

    @property
    def seconds(self) -> float:
        """The median time; 0 without a sample."""
        return statistics.median(s.seconds for s in self.samples) if self.samples else 0.0

    def middle(self) -> Sample:
        """Return the sample whose time is the median, or the one below."""
        return sorted(self.samples, key=lambda sample: sample.seconds)[(len(self.samples) - 1) // 2]


def lines(found: dict[Row, Figures]) -> list[str]:
    """Return the table in Markdown, without the columns that are empty throughout."""
    rows = [_cells(row, figures, found) for row, figures in found.items()]
    kept = [
        at for at, _ in enumerate(HEAD) if any(cells[at] != _MISSING for cells in rows) or not rows
    ]
    table = [[cells[at] for at in kept] for cells in [HEAD, *rows]]
    widths = [max(len(cells[at]) for cells in table) for at in range(len(kept))]
    drawn = [
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        + " |"
        for cells in table
    ]
    drawn.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return [*drawn, *_notes(found)]


def _notes(found: dict[Row, Figures]) -> list[str]:
    failures = [(row, figures.failure) for row, figures in found.items() if figures.failure]
    if not failures:
        return []
    return ["", *(f"- {' '.join(_names(row))}: {why}" for row, why in failures)]


def _names(row: Row) -> Sequence[str]:
    return row.link, row.image, row.work, row.contender


def _cells(row: Row, figures: Figures, found: dict[Row, Figures]) -> list[str]:
    if not figures.samples:
        return [*_names(row), _MISSING, *[_MISSING] * (len(HEAD) - 5)]
    sample, seconds = figures.middle(), figures.seconds
    others = {
        name: found.get(Row(row.link, row.image, row.work, name), Figures()).seconds
        for name in ("nbdkit", "nbdkit-tuned")
    }
    local = row == LOCAL
    return [
        *_names(row), f"{seconds:.2f}", _ratio(seconds, figures.limit),
        _ratio(seconds, others["nbdkit"]), _ratio(seconds, others["nbdkit-tuned"]),
        _ratio(seconds, figures.before),
        _MISSING if local else str(sample.requests),
        _MISSING if local else f"{sample.received / 1e6:.1f}",
        _ratio(sample.requests, sample.blocks), _ratio(sample.received, sample.needed),
        _MISSING if local else f"{sample.cpu:.1f}",
        _MISSING if local else f"{sample.rss / 2**20:.0f}",
        _MISSING if sample.trips is None or row.link != "far" else f"{sample.trips:.1f}",
    ]  # fmt: skip


def _ratio(a: float, b: float) -> str:
    return f"{a / b:.2f}" if b else _MISSING
