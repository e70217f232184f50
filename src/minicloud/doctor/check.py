"""One thing that was looked at: how it is, and what to do about it.

A name, once given, keeps its meaning: programs read it in `--json`.
"""

import enum
from dataclasses import dataclass

__all__ = ["Check", "Status", "Subject", "tidied"]


class Status(enum.StrEnum):
    """How it is; only `FAILED` makes a command fail."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """What came of one look.

    Attributes:
        subject: a node's name, or what else was looked at (`inventory`, `nbd`, `customize`).
        name: of the check, unique with its subject.
        status: how it is.
        text: what was found, one line; of a skipped one why it was not looked at.
        remedy: what the operator may do about it, or "".
    """

    subject: str
    name: str
    status: Status
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is looked at; makes its checks."""

    name: str

    def good(self, check: str, text: str) -> Check:
        """Make one that is as it should be."""
        return Check(self.name, check, Status.OK, text)

    def warning(self, check: str, text: str, remedy: str = "") -> Check:
        """Make one that may matter."""
        return Check(self.name, check, Status.WARNING, text, remedy)

    def failed(self, check: str, text: str, remedy: str) -> Check:
        """Make one that keeps something from working."""
        return Check(self.name, check, Status.FAILED, text, remedy)

    def skipped(self, check: str, because: str) -> Check:
        """Make one that was not looked at."""
        return Check(self.name, check, Status.SKIPPED, because)


def tidied(message: str) -> tuple[str, str]:
    """Split an error's line, `what happened; what to do`, into both."""
    text, _, remedy = message.partition("; ")
    return text, remedy
