"""A block in memory."""

from dataclasses import dataclass

__all__ = ["Held"]


@dataclass(frozen=True, slots=True)
class Held:
    """A decoded block: its data, or None if that is not in memory (zeroes, or spilled)."""

    data: memoryview | None
