"""When a request is slow, by tables and simulated lines; no clock, no network."""

import random

import pytest

from nbdserve.sources.httppace import MirrorPace, Recent, RequestPace

MIB = 1 << 20


def test_percentiles_are_of_young_samples_only():
    recent = Recent()
    assert recent.percentile(0.5, 0) is None
    for value in range(10):
        recent.add(float(value), now=float(value))
    assert recent.percentile(0.5, 9) == 5
    assert recent.percentile(0.95, 9) == 9
    assert recent.percentile(0.5, 9, enough=11) is None
    assert recent.percentile(0.0, 65) == 5, "those of the first five seconds are too old"
    assert recent.percentile(0.5, 1000) is None
    assert recent.median() == 5, "what was last known is better than nothing"
    for _ in range(16):
        recent.add(100.0, now=1000)
    assert recent.median() == 100


@pytest.mark.parametrize(
    ("samples", "busy", "patience"),
    [
        ([], False, 2.0),
        ([0.01] * 7, False, 2.0),
        ([0.01] * 8, False, 0.25),
        ([0.01] * 8, True, 1.0),
        ([0.3] * 50, False, 0.6),
        ([0.04] * 60 + [3.0] * 4, True, 6.0),
    ],
)
def test_a_first_byte_gets_twice_what_nearly_all_took(samples, busy, patience):
    pace = MirrorPace()
    for sample in samples:
        pace.first_byte(sample, now=0)
    assert pace.first_byte_patience(0, busy=busy) == pytest.approx(patience)


def flow(pace, rate, seconds, in_flight, now=0.0):
    """Let one request flow; whether it was found slow at any time."""
    found = False
    for _ in range(round(seconds / 0.02)):
        now += 0.02
        pace.received(int(rate * 0.02), 0.02, in_flight, now)
        found = pace.is_slow(in_flight, now) or found
    return found


def mirror(rate, in_flight=1):
    """Make a mirror that has shown so much."""
    made = MirrorPace()
    flow(RequestPace(made), rate, 10, in_flight)
    return made


def test_a_request_throttled_midway_is_slow():
    pace = RequestPace(mirror(50 * MIB))
    assert not flow(pace, 50 * MIB, 1, 1, now=10)
    assert flow(pace, 1 * MIB, 4, 1, now=11)


def test_a_mirror_that_is_throttled_is_known_soon():
    shown = mirror(50 * MIB)
    assert shown.rate > 40 * MIB
    flow(RequestPace(shown), 1 * MIB, 2.5, 1, now=10)
    assert shown.rate < 2 * MIB


def test_our_own_parallel_streams_make_no_request_slow():
    """Eight share what one had before, unevenly and with jitter."""
    line = 12 * MIB
    shown = mirror(line)
    chance = random.Random(1)
    paces = [RequestPace(shown) for _ in range(8)]
    now = 10.0
    for _ in range(1500):
        now += 0.02
        shares = [chance.uniform(0.5, 2) for _ in paces]
        for pace, share in zip(paces, shares, strict=True):
            pace.received(int(line * 0.02 * share / sum(shares)), 0.02, 8, now)
            assert not pace.is_slow(8, now)


def test_a_line_that_becomes_slow_for_all_is_the_new_measure():
    shown = mirror(50 * MIB)
    pace = RequestPace(shown)
    flow(pace, 2 * MIB, 20, 1, now=10)
    assert not flow(RequestPace(shown), 2 * MIB, 10, 1, now=30)


def test_a_slow_taker_makes_no_mirror_slow():
    pace = RequestPace(mirror(50 * MIB))
    now = 10.0
    for _ in range(100):
        now += 1  # the taker's second, in which nobody waited
        pace.received(64 << 10, 0.001, 1, now)
        assert not pace.is_slow(1, now)


def test_silence_in_the_middle_is_slow_even_where_nothing_is_known():
    pace = RequestPace(MirrorPace())
    pace.waited(1.9)
    assert pace.patience == pytest.approx(0.1)
    assert not pace.is_slow(1, 0)
    pace.waited(0.2)
    assert pace.is_slow(1, 0)


def test_what_could_not_be_helped_is_judged_again_later():
    pace = RequestPace(MirrorPace())
    pace.waited(2)
    assert pace.is_slow(1, 0)
    pace.forgive()
    pace.waited(3)
    assert not pace.is_slow(1, 0)
    pace.waited(1)
    assert pace.is_slow(1, 0)
