"""What no server can be faster than, in seconds, from what was measured in the same run. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from remote.layout import Block, Layout, length_of

__all__ = ["Machine", "limit"]

_TRIPS = 3  # TCP's handshake, a request for the index, a request for the block


@dataclass(frozen=True, slots=True)
class Machine:
    """What was measured.

    Attributes:
        rate: of the link, bytes a second.
        rtt: of the link, seconds.
        decode: what `xz -dc` takes for the whole file on one core, seconds.
        cores: how many decode at once.
    """

    rate: float
    rtt: float
    decode: float
    cores: int


def limit(work: str, machine: Machine, layout: Layout, needs: Sequence[Block]) -> float:
    """Return the least seconds of a work, from the time for the link or that for the cores.

    Decoding is taken to be as fast for every packed byte of the file. A block is decoded from its
    start; half of it is enough for the sector in its middle, and one core at a time works on it.
    """
    if work == "open":
        return (_TRIPS - 1) * machine.rtt
    share = 0.5 if work == "middle" else 1.0
    moved = length_of(needs) * share
    if work == "first":
        moved = 0
    cores = min(machine.cores, len(needs))
    decode = machine.decode * moved / layout.file_size / max(cores, 1)
    trips = {"first": _TRIPS, "middle": 1, "readers": 1}.get(work, 0)
    return max(moved / machine.rate, decode) + trips * machine.rtt
