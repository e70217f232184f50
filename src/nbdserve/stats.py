"""Counters of operations: how many, how many bytes, how often they failed, how long they took.

Made for the hot path: recording is a few integer additions, no lock (one event loop writes, and
a reader in the same loop sees whole records) and no allocation. Latencies go into buckets of
powers of two nanoseconds, so a percentile is known to within a factor of two, which is what an
operator asks of it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Counters", "OperationCounters", "OperationSnapshot"]

_BUCKETS = 48  # the last begins at 2^46 ns, 19 hours


@dataclass(frozen=True, slots=True)
class OperationSnapshot:
    """What was counted of one operation up to a moment.

    Attributes:
        count: operations that ended, failed ones included.
        errors: those that failed.
        bytes: bytes of those that succeeded.
        nanoseconds: sum of all durations.
        buckets: `buckets[n]` counts durations of at least 2^(n-1) and below 2^n nanoseconds.
    """

    count: int
    errors: int
    bytes: int
    nanoseconds: int
    buckets: tuple[int, ...]

    @property
    def mean(self) -> float:
        """Mean duration in seconds; 0 if nothing was counted."""
        return self.nanoseconds / self.count / 1e9 if self.count else 0.0

    def percentile(self, fraction: float) -> float:
        """Return the duration, in seconds, that this fraction of operations stayed below.

        It is the upper bound of a bucket, so up to twice the true value; 0 if nothing was
        counted.
        """
        wanted = fraction * self.count
        seen = 0
        for number, count in enumerate(self.buckets):
            seen += count
            if count and seen >= wanted:
                return (1 << number) / 1e9
        return 0.0


class OperationCounters:
    """Counts one kind of operation."""

    __slots__ = ("_buckets", "_bytes", "_count", "_errors", "_nanoseconds")

    def __init__(self) -> None:
        self._count = 0
        self._errors = 0
        self._bytes = 0
        self._nanoseconds = 0
        self._buckets = [0] * _BUCKETS

    def succeeded(self, nanoseconds: int, length: int) -> None:
        """Count an operation that did `length` bytes in so many nanoseconds."""
        self._count += 1
        self._bytes += length
        self._nanoseconds += nanoseconds
        number = nanoseconds.bit_length()
        self._buckets[number if number < _BUCKETS else -1] += 1

    def failed(self, nanoseconds: int) -> None:
        """Count an operation that failed after so many nanoseconds."""
        self._errors += 1
        self.succeeded(nanoseconds, 0)

    def snapshot(self) -> OperationSnapshot:
        """Return the counts so far."""
        return OperationSnapshot(
            self._count, self._errors, self._bytes, self._nanoseconds, tuple(self._buckets)
        )


class Counters:
    """A set of operations, counted one by one.

    Args:
        operations: their names, in the order reports have them.
    """

    def __init__(self, operations: Iterable[str]) -> None:
        self._counters = {name: OperationCounters() for name in operations}

    def __getitem__(self, operation: str) -> OperationCounters:
        return self._counters[operation]

    def snapshot(self) -> dict[str, OperationSnapshot]:
        """Return the counts so far by operation, those never used included."""
        return {name: counters.snapshot() for name, counters in self._counters.items()}
