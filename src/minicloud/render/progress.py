"""Progress of a long step on standard error: a line that moves on a terminal, silence elsewhere.

Nothing is shown in the first second, so that a quick command leaves no flicker.
"""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TextIO

from minicloud.render.output import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["TerminalReporter"]

_QUIET: Final = 1.0  # seconds before anything is shown


class TerminalReporter:
    """Shows steps and how far they are; a context manager, so that the terminal is left clean.

    Args:
        is_shown: whether there is somebody to watch; else nothing is printed.
        out: instead of standard error.
    """

    def __init__(self, *, is_shown: bool, out: TextIO | None = None) -> None:
        self._is_shown = is_shown
        self._out = out
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._begun = time.monotonic()
        self._text = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.pause()

    def step(self, text: str) -> None:
        """Say what is being done from now on; the second before it is shown begins anew."""
        self._text = printable(text)
        self._begun = time.monotonic()
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, description=self._text, total=None, completed=0)

    def progress(self, done: int, total: int, unit: str = "B") -> None:
        """Say how far the step has come, in bytes or in a unit of its own."""
        if not self._is_shown:
            return
        if self._progress is None:
            if time.monotonic() - self._begun < _QUIET:
                return
            self._start(in_bytes=unit == "B")
        assert self._progress is not None
        assert self._task is not None
        self._progress.update(self._task, completed=done, total=total or None)

    def tick(self) -> None:
        """Show the step if it has been going on for a second."""
        if self._is_shown and self._progress is None and self._text:
            self.progress(0, 0, "")

    def pause(self) -> None:
        """Leave the terminal to somebody else, until the next step: a question, a console."""
        self._text = ""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _start(self, *, in_bytes: bool) -> None:
        from rich.console import Console  # noqa: PLC0415 -- only for who watches a long step
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            DownloadColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
        )

        columns = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24)]
        if in_bytes:
            columns.append(DownloadColumn())
        columns.append(TimeElapsedColumn())
        console = Console(file=self._out or sys.stderr)
        self._progress = Progress(*columns, console=console, transient=True)
        self._task = self._progress.add_task(self._text, total=None)
        self._progress.start()
