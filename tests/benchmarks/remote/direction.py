"""One direction of a long link, as pure arithmetic: which packet arrives when.

A packet waits until the link is free (a queue that drops what does not fit, as a router's does),
then for the time its bytes take at the link's rate, then for the delay. Nothing here reads a clock
or a device, so the pipe's loop stays short and its timing can be tested.
"""

import random
from collections import deque

__all__ = ["Direction"]

# header, frame check, preamble and gap: what Ethernet adds to each packet (IEEE 802.3)
_FRAMING = 38


class Direction:
    """Packets under way in one direction.

    Args:
        delay: one way, seconds.
        rate: of the link, bits a second.
        queue: bytes that may wait for the link; more are dropped.
        loss: the share of packets to lose, 0 to 1.
    """

    def __init__(self, *, delay: float, rate: float, queue: int, loss: float = 0) -> None:
        self._delay = delay
        self._byte = 8 / rate
        self._longest = queue * self._byte
        self._loss = loss
        self._chance = random.Random(1)  # the same packets are lost in each run
        self._free = 0.0  # when the link has sent what it holds
        self._flying: deque[tuple[float, bytes]] = deque()
        self.dropped = 0

    def send(self, packet: bytes, now: float) -> None:
        """Take a packet that enters at `now`, or drop it."""
        start = max(self._free, now)
        if start - now > self._longest or (self._loss and self._chance.random() < self._loss):
            self.dropped += 1
            return
        self._free = start + (len(packet) + _FRAMING) * self._byte
        self._flying.append((self._free + self._delay, packet))

    def due(self) -> float | None:
        """Return when the next packet arrives; None if none is under way."""
        return self._flying[0][0] if self._flying else None

    def arrived(self, now: float) -> bytes | None:
        """Take the next packet off the link if it has arrived by `now`."""
        if self._flying and self._flying[0][0] <= now:
            return self._flying.popleft()[1]
        return None
