"""One mirror: an address, what it has shown of itself, and whether it may be used.

Its health is what it has done lately: errors, time to the first byte, throughput. Its content is
pinned twice: it must hold what the source opened, and stay what it was when it was looked at.
"""

import time
from collections.abc import Mapping
from typing import NamedTuple

from nbdserve.formats.httprange import Entity
from nbdserve.sources.httporigin import Origin
from nbdserve.sources.httppace import MirrorPace

__all__ = ["Mirror", "Pinned"]

_SAMPLE = 1 << 20  # a mirror's score is the seconds it takes for so many bytes
_UNKNOWN = 0.5  # seconds: what does clearly worse is left for a mirror that was never asked
_ERROR_COST = 1.0  # seconds on the score for an error just now: more than any unknown one has
_ERROR_LIFE = 30.0  # seconds in which the weight of errors halves
_LONGEST_REST = 60.0  # a Retry-After of hours ends reads, but is not obeyed by all later ones


class Pinned(NamedTuple):
    """The content that was opened, as far as mirrors are held against it.

    Attributes:
        size: bytes of the file.
        tail: its last bytes.
    """

    size: int
    tail: bytes


class Mirror:
    """One address of the file.

    Attributes:
        origin: how to ask it.
        pace: how fast it has answered lately.
        entity: the version it had when it was looked at; None before.
        excluded: why it is not used; None while it is.
        is_other: it holds another content: it is never asked again.
    """

    def __init__(self, origin: Origin, order: int) -> None:
        self.origin = origin
        self.order = order
        self.pace = MirrorPace()
        self.entity: Entity | None = None
        self.excluded: str | None = None
        self.is_other = False
        self.requests = 0
        self.errors = 0
        self.rests_until = 0.0
        self._weight = 0.0
        self._weight_at = 0.0

    @property
    def name(self) -> str:
        """Its address, as messages show it."""
        return self.origin.name

    def pin(self, headers: Mapping[str, str], size: int) -> Entity:
        """Note which version it has, out of an answer's headers."""
        self.entity = Entity.of(headers, size)
        return self.entity

    def failed(self, retry_after: float | None) -> None:
        """Note a failure; `retry_after` is what it asked for."""
        self.errors += 1
        self.late()
        if retry_after:
            rest = time.monotonic() + min(retry_after, _LONGEST_REST)
            self.rests_until = max(self.rests_until, rest)

    def late(self) -> None:
        """Note that it was found too slow: that weighs as much as an error."""
        now = time.monotonic()
        self._weight = self._errors(now) + 1
        self._weight_at = now

    def score(self) -> float:
        """Return the seconds it would take for 1 MiB, errors counted in; less is better."""
        latency, rate = self.pace.latency, self.pace.rate
        known = latency is not None or rate is not None
        base = (latency or 0.0) + (_SAMPLE / rate if rate else 0.0) if known else _UNKNOWN
        return base + _ERROR_COST * self._errors(time.monotonic())

    def status(self, number: int) -> dict[str, int | float | str | bool]:
        """Tell its health, as keys that begin with `mirror_NUMBER`."""
        state = "unused" if self.entity is None else "ok"
        latency, rate = self.pace.latency, self.pace.rate
        return {
            f"mirror_{number}": self.name,
            f"mirror_{number}_state": state if self.excluded is None else self.excluded,
            f"mirror_{number}_requests": self.requests,
            f"mirror_{number}_errors": self.errors,
            f"mirror_{number}_first_byte_seconds": round(latency or 0.0, 4),
            f"mirror_{number}_bytes_per_second": int(rate or 0),
        }

    def _errors(self, now: float) -> float:
        return self._weight * float(2 ** (-(now - self._weight_at) / _ERROR_LIFE))
