"""The number of parallel requests, against lines of known shape; no clock, no network."""

import itertools

from nbdserve.sources.httpwindow import Window

TICK = 0.05


class Line:
    """A line that carries `each` bytes a second a request, and `most` in all."""

    def __init__(self, window, each, most):
        self.window, self.each, self.most = window, each, most
        self.now = 100.0

    def run(self, seconds, *, demand=1000):
        """Keep `demand` requests wanting; give the limits seen at each tick."""
        seen = []
        for _ in range(round(seconds / TICK)):
            self.now += TICK
            active = min(self.window.limit, demand)
            if demand > active:
                self.window.wanted()
            rate = min(active * self.each, self.most)
            self.window.received(int(rate * TICK), self.now)
            seen.append(self.window.limit)
        return seen


def test_it_begins_low_and_never_passes_the_operators_bound():
    assert Window(8).limit == 4
    assert Window(2).limit == 2
    assert Window(0).limit == 1
    line = Line(Window(6), each=1e6, most=1e9)
    assert max(line.run(60)) == 6


def test_it_grows_while_each_request_adds_throughput():
    line = Line(Window(64), each=1e6, most=1e9)
    line.run(5)
    assert line.window.limit == 64


def test_it_stays_where_a_saturated_line_gains_nothing():
    line = Line(Window(64), each=5e6, most=12e6)
    seen = line.run(60)
    assert max(seen) <= 8
    assert sum(seen) / len(seen) < 5, "tries are rare"


def test_it_does_not_grow_for_nobody():
    line = Line(Window(64), each=1e6, most=1e9)
    assert max(line.run(10, demand=3)) == 4


def test_it_is_halved_when_pushed_back_once_for_all_requests_of_that_time():
    line = Line(Window(64), each=1e6, most=1e9)
    line.run(5)
    for _ in range(10):  # all that were under way are answered with 503
        line.window.pushed_back(started=line.now - 1, now=line.now)
    assert line.window.limit == 32
    line.window.pushed_back(started=line.now + 0.1, now=line.now + 0.2)
    assert line.window.limit == 16


def test_it_ends_at_one_and_comes_back_slowly():
    line = Line(Window(16), each=1e6, most=1e9)
    for _ in range(10):
        line.now += 1
        line.window.pushed_back(started=line.now, now=line.now)
    assert line.window.limit == 1
    seen = line.run(2)
    assert max(seen) == 1, "it waits before it tries again"
    seen = line.run(60)
    assert seen[-1] == 16
    assert all(b - a <= 1 for a, b in itertools.pairwise(seen)), "step by step"


def test_a_pause_is_no_lack_of_throughput():
    line = Line(Window(64), each=1e6, most=1e9)
    for _ in range(30):
        line.run(0.5)
        line.now += 30
    assert line.window.limit >= 8
