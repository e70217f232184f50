"""Processes known by pid and start time, so that a pid that was given anew is never meant.

A lab outlives the command that made it (`python -m lab up`), so what is kept of a process must be
something that can be written down.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ENVIRONMENT", "LabError", "Lifeline", "Process", "until"]

# what daemons of a node see: nothing of the shell or test run that started them
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}


class LabError(Exception):
    """The lab could not do what was asked; one line."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process that may have ended since."""

    pid: int
    started: int  # clock ticks since the machine's boot (proc_pid_stat(5), field 22)

    @classmethod
    def of(cls, pid: int) -> "Process":
        """Take note of a process that runs."""
        fields = _stat(pid)
        if fields is None:
            raise LabError(f"process {pid} has ended already")
        return cls(pid, int(fields[19]))

    @classmethod
    def written(cls, path: Path) -> "Process | None":
        """Read `PID STARTED` from a file; None where there is none."""
        try:
            return cls(*map(int, path.read_text().split()))
        except FileNotFoundError:
            return None

    def is_alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        fields = _stat(self.pid)
        return fields is not None and int(fields[19]) == self.started and fields[0] != "Z"

    def end(self) -> None:
        """Kill it, and wait until it is gone, with all that its pid namespace holds."""
        with contextlib.suppress(ProcessLookupError):
            if self.is_alive():
                os.kill(self.pid, signal.SIGKILL)
        until(lambda: not self.is_alive(), f"process {self.pid} to be gone")


class Lifeline:
    """What the lab's processes read as their standard input: its end is theirs.

    Args:
        kept: each process holds its own line's other end, so that it never ends.
    """

    def __init__(self, *, kept: bool) -> None:
        self._kept = kept
        self._read, self._write = os.pipe()
        self._children: list[subprocess.Popen[bytes]] = []

    def spawn(self, argv: Sequence[str], *, pass_fds: Sequence[int] = (), output) -> Process:
        """Start a process that hangs on the line, safe from the terminal's signals."""
        if self._kept:
            pass_fds = (*pass_fds, self._write)
        child = subprocess.Popen(
            argv, stdin=self._read, stdout=output, stderr=output, pass_fds=pass_fds, cwd="/",
            env=ENVIRONMENT, start_new_session=True,
        )  # fmt: skip
        self._children = [other for other in self._children if other.poll() is None] + [child]
        return Process.of(child.pid)

    def cut(self) -> None:
        """End them all, if they are not kept, and wait until they are gone."""
        os.close(self._write)
        os.close(self._read)
        for child in [] if self._kept else self._children:
            child.wait(30)


def until(predicate: Callable[[], object], what: str, within: float = 30) -> None:
    """Return as soon as `predicate` holds; LabError when it does not within `within` seconds."""
    deadline = time.monotonic() + within
    while not predicate():
        if time.monotonic() > deadline:
            raise LabError(f"waited {within:g} s in vain for {what}")
        time.sleep(0.002)  # the pace of the question, not a guess at the answer


def _stat(pid: int) -> list[str] | None:
    """Return /proc/PID/stat from field 3 (the state) on; the name before may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
