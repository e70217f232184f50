import itertools
import random

import pytest

from nbdserve.overlay.clusters import ClusterMap, ClusterState, Run, spans

BASE, DATA, ZERO = ClusterState


def map_of(states, *, size=None, cluster=4, page=4):
    clusters = ClusterMap(len(states) * cluster if size is None else size, cluster, page)
    for number, state in enumerate(states):
        clusters.put(state, number, number + 1)
    return clusters


def test_a_new_map_is_the_base_alone():
    assert list(ClusterMap(100, 4, 4).runs(0, 100)) == [Run(BASE, 0, 100)]


@pytest.mark.parametrize(
    ("offset", "length", "runs"),
    [
        (0, 20, [(BASE, 0, 4), (DATA, 4, 8), (ZERO, 12, 4), (BASE, 16, 4)]),
        (2, 4, [(BASE, 0, 2), (DATA, 2, 2)]),
        (5, 2, [(DATA, 0, 2)]),
        (4, 8, [(DATA, 0, 8)]),
        (11, 6, [(DATA, 0, 1), (ZERO, 1, 4), (BASE, 5, 1)]),
        (19, 1, [(BASE, 0, 1)]),
        (8, 0, []),
    ],
)
def test_a_range_is_split_where_the_state_changes(offset, length, runs):
    clusters = map_of([BASE, DATA, DATA, ZERO, BASE])
    assert list(clusters.runs(offset, length)) == runs


@pytest.mark.parametrize("seed", range(5))
def test_runs_agree_with_the_states_one_by_one(seed):
    rng = random.Random(seed)
    states = []
    while len(states) < 200_000:
        states += [rng.choice([BASE, DATA, ZERO])] * rng.choice([1, 2, 17, 1100, 70_000])
    clusters = ClusterMap(len(states), 1, 1 << 14)
    at = 0
    while at < len(states):
        end = at
        while end < len(states) and states[end] == states[at]:
            end += 1
        clusters.put(states[at], at, end)
        at = end
    offset = rng.randrange(1000)
    runs = list(clusters.runs(offset, len(states) - offset))
    assert all(run.length for run in runs)
    assert all(a.state != b.state and a.at + a.length == b.at for a, b in itertools.pairwise(runs))
    flat = [state for run in runs for state in [run.state] * run.length]
    assert flat == states[offset:]


@pytest.mark.parametrize(
    ("offset", "length", "whole", "partials"),
    [
        (0, 4, (0, 1), []),
        (0, 14, (0, 4), []),  # the last cluster ends where the device does
        (1, 2, (1, 1), [(1, 2)]),
        (4, 2, (1, 1), [(4, 2)]),
        (2, 2, (1, 1), [(2, 2)]),
        (2, 4, (1, 1), [(2, 2), (4, 2)]),
        (2, 12, (1, 4), [(2, 2)]),
        (2, 8, (1, 2), [(2, 2), (8, 2)]),
        (12, 2, (3, 4), []),
        (13, 1, (4, 4), [(13, 1)]),
        (12, 1, (3, 3), [(12, 1)]),
        (5, 0, (2, 2), []),
    ],
)
def test_a_range_is_whole_clusters_and_parts_at_its_ends(offset, length, whole, partials):
    clusters = ClusterMap(14, 4, 4)
    assert clusters.whole(offset, length) == whole
    assert clusters.partials(offset, length) == partials


def test_every_byte_of_a_range_is_in_a_whole_cluster_or_in_one_part():
    clusters = ClusterMap(14, 4, 4)
    for offset in range(14):
        for length in range(14 - offset + 1):
            first, stop = clusters.whole(offset, length)
            covered = list(range(first * 4, min(stop * 4, 14)))
            for start, part in clusters.partials(offset, length):
                assert start // 4 == (start + part - 1) // 4
                covered += range(start, start + part)
            assert sorted(covered) == list(range(offset, offset + length))


def test_only_pages_that_change_become_dirty():
    clusters = ClusterMap(64, 4, 4)
    clusters.put(DATA, 3, 5)
    assert clusters.is_dirty
    assert clusters.take_dirty() == {0: bytes([0, 0, 0, 1]), 1: bytes([1, 0, 0, 0])}
    assert not clusters.is_dirty
    clusters.put(DATA, 3, 5)
    assert clusters.take_dirty() == {}
    clusters.put(DATA, 3, 6)
    assert list(clusters.take_dirty()) == [1]


def test_pages_that_could_not_be_stored_are_dirty_again():
    clusters = ClusterMap(64, 4, 4)
    clusters.put(ZERO, 0, 16)
    pages = clusters.take_dirty()
    clusters.give_back(pages)
    assert clusters.take_dirty() == pages


def test_the_last_page_holds_only_the_clusters_that_exist():
    clusters = ClusterMap(22, 4, 4)
    clusters.put(DATA, 5, 6)
    assert clusters.take_dirty() == {1: bytes([0, 1])}


def test_a_loaded_page_is_clean_and_does_not_reach_past_the_device():
    clusters = ClusterMap(22, 4, 4)
    clusters.load(1, bytes([0, 1, 2, 2]))
    assert list(clusters.runs(0, 22)) == [Run(BASE, 0, 20), Run(DATA, 20, 2)]
    assert not clusters.is_dirty


def test_states_are_looked_up_by_range():
    clusters = map_of([BASE, DATA, DATA, ZERO])
    assert clusters.is_all(DATA, 1, 3)
    assert not clusters.is_all(DATA, 1, 4)
    assert not clusters.is_all(DATA, 0, 2)
    assert clusters.is_all(DATA, 2, 2)
    assert clusters.has(ZERO, 0, 4)
    assert not clusters.has(ZERO, 0, 3)
    assert clusters[3] is ZERO


def test_a_device_of_size_0_has_no_clusters():
    clusters = ClusterMap(0, 4, 4)
    assert list(clusters.runs(0, 0)) == []
    assert clusters.whole(0, 0) == (0, 0)


def test_runs_of_the_base_near_each_other_are_read_as_one():
    runs = [Run(BASE, 0, 4), Run(DATA, 4, 8), Run(BASE, 12, 4), Run(ZERO, 16, 9), Run(BASE, 25, 1)]
    assert spans(runs, 8) == [[runs[0], runs[2]], [runs[4]]]
    assert spans(runs, 9) == [[runs[0], runs[2], runs[4]]]
    assert spans(runs, 0) == [[runs[0]], [runs[2]], [runs[4]]]
    assert spans([Run(DATA, 0, 4)], 8) == []


def test_the_state_around_a_range_is_that_of_the_one_cluster_it_is_in():
    clusters = map_of([BASE, DATA, ZERO])
    assert [clusters.state_around(at, 2) for at in (0, 4, 10)] == [0, 1, 2]
    assert clusters.state_around(2, 4) is None
    assert clusters.state_around(12, 0) is None, "the end of the device is in none"
