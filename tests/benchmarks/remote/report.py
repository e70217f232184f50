"""What a run found, as it comes: lines while it goes on, a table at its end, and a JSON file."""

import json
import os
import platform
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from remote.plan import Row
from remote.table import Figures, lines
from remote.trial import Sample

__all__ = ["Report"]


@dataclass(slots=True)
class Report:
    """All rows of a run, in the order of the table.

    Attributes:
        facts: of the machine and the run, for the file.
        found: by row.
        failed: whether a trial failed.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    found: dict[Row, Figures] = field(default_factory=dict)
    failed: bool = False

    @classmethod
    def of(cls, rows: Iterable[Row], earlier: Path | None) -> "Report":
        """Begin; `earlier` is the file of another run to be set beside this one."""
        before = {} if earlier is None else read(earlier)
        found = {row: Figures(before=before.get(row, 0.0)) for row in rows}
        return cls(machine(), found)

    def add(self, row: Row, sample: Sample) -> None:
        """Take in a trial."""
        self.found[row].samples.append(sample)
        self._tell(row, f"{sample.seconds:.2f} s")

    def fail(self, row: Row, why: str) -> None:
        """Take in that a trial failed; the row is not tried again."""
        self.failed = True
        self.skip(row, f"failed: {why}")

    def skip(self, row: Row, why: str) -> None:
        """Take in why a row has no figure."""
        self.found[row].failure = " ".join(why.split())[:300]
        self._tell(row, self.found[row].failure)

    def lines(self) -> list[str]:
        """Return the table of those rows that were reached."""
        return lines({row: f for row, f in self.found.items() if f.samples or f.failure})

    def write(self, path: Path) -> None:
        """Write everything to a file, for comparisons."""
        rows = [{**asdict(row), **asdict(figures)} for row, figures in self.found.items()]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**self.facts, "rows": rows}, indent=1) + "\n")

    def _tell(self, row: Row, what: str) -> None:
        print(f"{row.link:5} {row.image:5} {row.work:8} {row.contender:15} {what}",
              file=sys.stderr, flush=True)  # fmt: skip


def read(path: Path) -> dict[Row, float]:
    """Return the median seconds of each row of an earlier run."""
    found = {}
    for row in json.loads(path.read_text())["rows"]:
        figures = Figures([Sample(**sample) for sample in row["samples"]])
        found[Row(row["link"], row["image"], row["work"], row["contender"])] = figures.seconds
    return found


def machine() -> dict[str, Any]:
    """Tell what the figures were found on."""
    model = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "system": platform.platform(),
        "processor": model[0].split(":", 1)[1].strip() if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }
