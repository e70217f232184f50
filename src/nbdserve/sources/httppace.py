"""When a request is slow: held against what its mirror has shown lately, not against a constant.

A second request is worth its cost only if the first is slower than nearly all others. Two things
make honest requests slow, and neither is a reason: a far server (so the measure is a high
percentile of the last answers) and our own other requests on the same line (so throughput is held
against a fair share of it, and the first byte gets more time while others are flowing).

Pure: no clock; times are seconds, rates bytes a second.
"""

from collections import deque

__all__ = ["MirrorPace", "Recent", "RequestPace"]

_REMEMBERED = 64  # samples; the slowest one in twenty must not hang on one or two of them
_LAST = 16  # samples that tell what a mirror is now: one that is throttled is known after 2 MiB
_LIFE = 60.0  # seconds after which a sample tells nothing of now
_ENOUGH = 8  # samples for a percentile that means something
_HIGH = 0.95

_UNKNOWN_PATIENCE = 2.0  # for a first byte, while there are too few samples
_LEAST_PATIENCE = 0.25  # a stall of the event loop or of the server's disk is no slow mirror
_BUSY_PATIENCE = 1.0  # our own requests fill queues on the way; half a second is common
_FACTOR = 2.0

_SEGMENT = 256 << 10  # bytes that make a sample of throughput: beyond what buffers hide
_WINDOW = 2.0  # seconds of waiting that a verdict on throughput takes
_SLOW = 0.25  # of its fair share


class Recent:
    """The last samples of something."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)

    def add(self, value: float, now: float) -> None:
        """Add a sample."""
        self._samples.append((now, value))

    def percentile(self, fraction: float, now: float, *, enough: int = 1) -> float | None:
        """Return the value that this fraction of the young samples stays below.

        None if there are not enough of them.
        """
        return _percentile([v for at, v in self._samples if now - at <= _LIFE], fraction, enough)

    def median(self) -> float | None:
        """Return the middle of the very last samples, however old they are."""
        return _percentile([value for _, value in list(self._samples)[-_LAST:]], 0.5, 1)


def _percentile(values: list[float], fraction: float, enough: int) -> float | None:
    if len(values) < enough:
        return None
    return sorted(values)[min(len(values) - 1, int(fraction * len(values)))]


class MirrorPace:
    """How fast a mirror has answered lately."""

    def __init__(self) -> None:
        self._first_byte = Recent()
        self._line = Recent()

    def first_byte(self, seconds: float, now: float) -> None:
        """Note how long a first byte took, or had not come after."""
        self._first_byte.add(seconds, now)

    def flow(self, rate: float, in_flight: int, now: float) -> None:
        """Note what one of so many requests under way got: the line does so many times that."""
        self._line.add(rate * in_flight, now)

    @property
    def latency(self) -> float | None:
        """Typical seconds to the first byte, when it was last used."""
        return self._first_byte.median()

    @property
    def rate(self) -> float | None:
        """Typical bytes a second of all requests together, when it was last used."""
        return self._line.median()

    def line_rate(self, now: float) -> float | None:
        """Typical bytes a second of all requests together, of late."""
        return self._line.percentile(0.5, now)

    def first_byte_patience(self, now: float, *, busy: bool) -> float:
        """Return after how long without a first byte a request is slower than nearly all."""
        usual = self._first_byte.percentile(_HIGH, now, enough=_ENOUGH)
        if usual is None:
            return _UNKNOWN_PATIENCE
        return max(_FACTOR * usual, _BUSY_PATIENCE if busy else _LEAST_PATIENCE)


class RequestPace:
    """How one answer flows, counting only the time that somebody waited for its bytes.

    A taker that is slow makes no mirror slow.
    """

    def __init__(self, mirror: MirrorPace) -> None:
        self._mirror = mirror
        self._waited = 0.0  # since the last verdict
        self._bytes = 0
        self._sample_waited = 0.0
        self._sample_bytes = 0
        self._grace = 1.0
        self.was_silent = False
        """Whether nothing came at all before the last verdict."""

    def received(self, length: int, waited: float, in_flight: int, now: float) -> None:
        """Count bytes that were waited for so long."""
        self.waited(waited)
        self._bytes += length
        self._sample_bytes += length
        if self._sample_bytes >= _SEGMENT:
            self._mirror.flow(self._sample_bytes / max(self._sample_waited, 1e-3), in_flight, now)
            self._sample_bytes, self._sample_waited = 0, 0.0

    def waited(self, seconds: float) -> None:
        """Count time in which nothing came."""
        self._waited += seconds
        self._sample_waited += seconds

    @property
    def patience(self) -> float:
        """Seconds of waiting until the next verdict."""
        return max(0.0, _WINDOW * self._grace - self._waited)

    def is_slow(self, in_flight: int, now: float) -> bool:
        """Judge the time since the last verdict; False while that is too short to tell."""
        if self.patience > 0:
            return False
        rate = self._bytes / self._waited
        self.was_silent = rate == 0
        line = self._mirror.line_rate(now)
        self._waited, self._bytes = 0.0, 0
        if line is None:
            return rate == 0
        return rate < _SLOW * line / max(1, in_flight)

    def forgive(self) -> None:
        """Wait twice as long for the next verdict: nothing could be done about this one."""
        self._grace *= 2
