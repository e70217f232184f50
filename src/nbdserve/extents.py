"""Extents: which ranges of a device are holes, and which read as zeroes.

The states are those of the `base:allocation` meta context, bit for bit, so that a device's answer
goes to the wire untranslated. Invariants of every list of extents in this project: no extent has
length 0, neighbours differ in state, and the first one starts at the offset that was asked for.
Source: NBD proto.md, "base:allocation metadata context".
"""

import enum
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["DATA", "ZERO_HOLE", "Extent", "State", "clip", "coalesce"]


class State(enum.IntFlag):
    """State of an extent, with the wire values of base:allocation."""

    DATA = 0
    HOLE = 1
    ZERO = 2


class Extent(NamedTuple):
    """A run of `length` bytes in one state, starting where its predecessor ends."""

    length: int
    state: State


DATA = State.DATA
ZERO_HOLE = State.HOLE | State.ZERO


def coalesce(extents: Iterable[Extent]) -> list[Extent]:
    """Join neighbours of equal state and drop empty extents."""
    joined: list[Extent] = []
    for extent in extents:
        if extent.length <= 0:
            continue
        if joined and joined[-1].state == extent.state:
            joined[-1] = Extent(joined[-1].length + extent.length, extent.state)
        else:
            joined.append(extent)
    return joined


def clip(extents: Iterable[Extent], length: int) -> list[Extent]:
    """Cut a list of extents so that it covers at most `length` bytes."""
    kept: list[Extent] = []
    left = length
    for extent in extents:
        if left <= 0:
            break
        kept.append(Extent(min(extent.length, left), extent.state))
        left -= extent.length
    return kept
