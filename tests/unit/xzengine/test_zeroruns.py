"""Runs of zeroes of a block: joined, cut to the grid, asked for by range."""

from nbdserve.extents import DATA, ZERO_HOLE, coalesce
from nbdserve.xzengine.zeroruns import ZeroRuns

K = 1 << 10


def extents(runs, start, end, block=0):
    return coalesce(runs.extents(block, start, end))


def test_runs_that_touch_are_one_and_ends_are_cut_to_the_grid():
    runs = ZeroRuns()
    runs.add(0, [(1000, 50_000), (50_000, 200 * K + 5)])
    assert extents(runs, 0, 300 * K) == [(4 * K, DATA), (196 * K, ZERO_HOLE), (100 * K, DATA)]


def test_a_range_within_is_cut_out():
    runs = ZeroRuns()
    runs.add(3, [(0, 100 * K)])
    runs.add(3, [(200 * K, 300 * K)])
    assert extents(runs, 10, 100, 3) == [(90, ZERO_HOLE)]
    assert extents(runs, 90 * K, 250 * K, 3) == [
        (10 * K, ZERO_HOLE), (100 * K, DATA), (50 * K, ZERO_HOLE),
    ]  # fmt: skip
    assert extents(runs, 0, 100, 4) == [(100, DATA)]


def test_a_short_run_is_left_out():
    runs = ZeroRuns()
    runs.add(0, [(0, 63 * K)])
    assert extents(runs, 0, 100 * K) == [(100 * K, DATA)]


def test_a_block_without_runs_takes_no_memory():
    runs = ZeroRuns()
    runs.add(0, [])
    assert not runs._runs


def test_what_is_added_twice_counts_once_and_what_is_forgotten_not_at_all():
    runs = ZeroRuns()
    for _ in range(2):
        runs.add(0, [(0, 100 * K), (200 * K, 300 * K)])
    assert extents(runs, 0, 300 * K) == [
        (100 * K, ZERO_HOLE),
        (100 * K, DATA),
        (100 * K, ZERO_HOLE),
    ]
    runs.forget(0)
    assert extents(runs, 0, 300 * K) == [(300 * K, DATA)]
