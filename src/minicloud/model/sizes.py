"""Sizes for people, as mclu printed them: `15.2G`."""

from typing import Final

__all__ = ["size_text"]

_UNITS: Final = "KMGTPE"
_SMALL: Final = "BKM"


def size_text(size: int) -> str:
    """Write bytes in the largest unit (powers of 1024) that keeps the number above 1.

    It has one decimal, but none where a number below a GiB is whole: `15.2G`, `1.0G`, `512M`.
    """
    value, unit = float(size), "B"
    for larger in _UNITS:
        if abs(value) < 1023.95:  # what would be printed as 1024.0 is 1.0 of the next
            break
        value, unit = value / 1024, larger
    text = f"{value:.1f}"
    return f"{text.removesuffix('.0') if unit in _SMALL else text}{unit}"
