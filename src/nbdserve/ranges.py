"""Arithmetic on byte ranges: the pure half of every layer that splits requests.

A range is (offset, length) in bytes. Nothing here does I/O or knows a device.
"""

from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Piece", "align_down", "align_up", "pieces"]


class Piece(NamedTuple):
    """The part of a request that falls into one unit (block, cluster) of a device.

    Attributes:
        unit: the unit's number.
        start: where the part starts within the unit, in bytes.
        length: the part's length in bytes.
        at: where the part lies within the request's buffer, in bytes.
    """

    unit: int
    start: int
    length: int
    at: int


def align_down(value: int, unit: int) -> int:
    """Round down to a multiple of `unit`."""
    return value - value % unit


def align_up(value: int, unit: int) -> int:
    """Round up to a multiple of `unit`."""
    return value + -value % unit


def pieces(offset: int, length: int, unit: int) -> Iterator[Piece]:
    """Split a range at every multiple of `unit`; contiguous, in order, none empty."""
    at = 0
    while at < length:
        number, start = divmod(offset + at, unit)
        size = min(unit - start, length - at)
        yield Piece(number, start, size, at)
        at += size
