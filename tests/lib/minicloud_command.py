"""The real `minicloud` command, as an operator runs it."""

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

__all__ = ["Answer", "minicloud", "minicloud_argv"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command said.

    Attributes:
        status: its exit status.
        out: standard output.
        err: standard error.
    """

    status: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        return json.loads(self.out)


def minicloud_argv(*words: object) -> list[str]:
    """Build the command line, run by this very interpreter."""
    return [sys.executable, "-m", "minicloud", *map(str, words)]


def minicloud(*words: object, given: str = "", timeout: float = 600) -> Answer:
    """Run a command to its end."""
    done = subprocess.run(
        minicloud_argv(*words), input=given, capture_output=True, text=True, timeout=timeout,
        check=False,
    )  # fmt: skip
    return Answer(done.returncode, done.stdout, done.stderr)
