"""Sizes for people, as mclu printed them: `15.2G`."""

from typing import Final

__all__ = ["size_text"]

_UNITS: Final = "KMGTPE"


def size_text(size: int) -> str:
    """Write bytes with one decimal in the largest unit (powers of 1024) that keeps it above 1."""
    value, unit = float(size), "B"
    for larger in _UNITS:
        if abs(value) < 1023.95:  # what would be printed as 1024.0 is 1.0 of the next
            break
        value, unit = value / 1024, larger
    return f"{size}B" if unit == "B" else f"{value:.1f}{unit}"
