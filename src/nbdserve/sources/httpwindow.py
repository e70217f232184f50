"""How many requests a host gets at once: found by trying, not configured.

More requests help while each added one adds throughput (a far server and small answers); beyond
that they only annoy the server. So the number starts low, grows while that pays, goes back a step
where it did not, and is halved when the server pushes back. This is additive increase and
multiplicative decrease with a look at what an increase has brought, as TCP Vegas has.

Pure: no clock and no I/O; every moment is an argument, in seconds, of any one clock.
"""

__all__ = ["Window"]

_FIRST = 4  # as many as an NBD client has connections by habit; a browser opens 6
_PERIOD = 0.25  # some round trips of a far server; shorter, and chance decides
_LONGEST_PERIOD = 1.0  # what took longer was no steady flow, and tells nothing
_WORTH = 0.25  # of the throughput that as many requests more should bring at best
_FIRST_HOLD = 8  # periods without a try to grow after one that brought nothing; doubles
_LONGEST_HOLD = 128


class Window:
    """The number of requests that may be under way to one host.

    Args:
        most: the operator's upper bound; may be changed.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._limit = _FIRST
        self._before = 0  # the limit before the last growth; 0 when that is judged
        self._rate_before = 0.0
        self._doubling = True
        self._hold = 0
        self._next_hold = _FIRST_HOLD
        self._cut_at = float("-inf")
        self._since: float | None = None
        self._bytes = 0
        self._wanted = False

    @property
    def limit(self) -> int:
        """The number now; at least 1, at most `most`."""
        return max(1, min(self._limit, self.most))

    def wanted(self) -> None:
        """Note that a request has to wait for another to end."""
        self._wanted = True

    def received(self, length: int, now: float) -> None:
        """Count bytes that came; judges once a period."""
        if self._since is None:
            self._since = now
        self._bytes += length
        passed = now - self._since
        if passed < _PERIOD:
            return
        rate = self._bytes / passed
        steady = passed < _LONGEST_PERIOD and self._wanted
        self._since, self._bytes, self._wanted = now, 0, False
        if steady:
            self._judge(rate)
        else:
            self._before = 0

    def pushed_back(self, started: float, now: float) -> None:
        """Halve the number: a request was answered with 429 or 503, reset, or never answered.

        Args:
            started: when that request was made; those made before the last cut tell nothing new.
            now: the moment.
        """
        if started < self._cut_at:
            return
        self._limit = max(1, self.limit // 2)
        self._cut_at = now
        self._doubling = False
        self._before = 0
        self._hold = _FIRST_HOLD

    def _judge(self, rate: float) -> None:
        if self._before:
            added = self.limit / self._before - 1
            worth = self._rate_before * (1 + _WORTH * added)
            if rate < worth:
                self._limit, self._before = self._before, 0
                self._doubling = False
                self._hold = self._next_hold
                self._next_hold = min(2 * self._next_hold, _LONGEST_HOLD)
                return
            self._before = 0
            self._next_hold = _FIRST_HOLD
        if self._hold:
            self._hold -= 1
        elif self.limit < self.most:
            self._before, self._rate_before = self.limit, rate
            self._limit = min(self.most, self.limit * 2 if self._doubling else self.limit + 1)
