"""One thing that was checked before a guest moves: what was found, and what to do about it."""

import enum
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Finding", "Level", "good", "problem", "problems", "warning"]


class Level(enum.StrEnum):
    """How much it matters; a problem keeps the guest where it is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found.

    Attributes:
        topic: what was looked at, one word or two.
        level: how much it matters.
        text: what was found, one line.
        remedy: what the operator may do about it, or "".
    """

    topic: str
    level: Level
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.text}; {self.remedy}" if self.remedy else self.text


def good(topic: str, text: str) -> Finding:
    """Make a finding that is as it should be."""
    return Finding(topic, Level.OK, text)


def warning(topic: str, text: str, remedy: str = "") -> Finding:
    """Make one that may matter."""
    return Finding(topic, Level.WARNING, text, remedy)


def problem(topic: str, text: str, remedy: str = "") -> Finding:
    """Make one that keeps the guest where it is."""
    return Finding(topic, Level.PROBLEM, text, remedy)


def problems(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Pick those that keep the guest where it is."""
    return tuple(found for found in findings if found.level is Level.PROBLEM)
