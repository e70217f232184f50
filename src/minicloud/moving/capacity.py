"""Where guests go that leave a node, by memory: all of them are given a place before one moves.

Two ways to fill nodes are tried, the largest guest first: the emptiest node, which spreads them,
and where that leaves somebody out, the fullest node that still fits, which wastes least.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Lack", "Load", "Plan", "emptiest", "plan_places"]

_Choice = Callable[[int, Mapping[str, int]], str | None]


@dataclass(frozen=True, slots=True)
class Load:
    """A guest that needs a place.

    Attributes:
        guest: its name.
        memory: bytes it takes where it goes; 0 for one that does not run.
    """

    guest: str
    memory: int


@dataclass(frozen=True, slots=True)
class Lack:
    """A guest no node has room for.

    Attributes:
        guest: its name.
        memory: bytes it needs.
        node: the one with the most left once the others have their place; None where there is none.
        free: bytes it has left.
    """

    guest: str
    memory: int
    node: str | None
    free: int

    def __str__(self) -> str:
        need = f"{self.guest} needs {self.memory >> 20} MiB"
        if self.node is None:
            return f"{need}, and there is no other node"
        return f"{need}, and at most {max(self.free, 0) >> 20} MiB are left, on {self.node}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Who goes where.

    Attributes:
        places: node by guest, in the order they should move.
        lacking: those without one.
        free: bytes each node has left.
    """

    places: Mapping[str, str]
    lacking: tuple[Lack, ...]
    free: Mapping[str, int]


def emptiest(memory: int, free: Mapping[str, int], *, but: Collection[str] = ()) -> str | None:
    """Return the node with the most free memory, if that is enough; ties go to the first.

    Args:
        memory: bytes needed.
        free: bytes by node.
        but: nodes that are out of the question.
    """
    fitting = [node for node in free if node not in but and free[node] >= memory]
    return max(fitting, key=lambda node: free[node], default=None)


def plan_places(loads: Sequence[Load], free: Mapping[str, int]) -> Plan:
    """Give each guest a node.

    Args:
        loads: the guests.
        free: bytes of memory of each node they may go to, after its reserve.
    """
    spread = _plan(loads, free, emptiest)
    if not spread.lacking:
        return spread
    packed = _plan(loads, free, _tightest)
    return packed if len(packed.lacking) < len(spread.lacking) else spread


def _plan(loads: Sequence[Load], free: Mapping[str, int], choose: _Choice) -> Plan:
    left = dict(free)
    places: dict[str, str] = {}
    lacking: list[Load] = []
    for load in sorted(loads, key=lambda load: load.memory, reverse=True):
        node = choose(load.memory, left)
        if node is None:
            lacking.append(load)
            continue
        places[load.guest] = node
        left[node] -= load.memory
    most = max(left, key=lambda node: left[node], default=None)
    room = 0 if most is None else left[most]
    lacks = tuple(Lack(load.guest, load.memory, most, room) for load in lacking)
    return Plan(places, lacks, left)


def _tightest(memory: int, free: Mapping[str, int]) -> str | None:
    fitting = [node for node in free if free[node] >= memory]
    return min(fitting, key=lambda node: free[node], default=None)
