"""Recognising sequential readers: each kind of client in a table, the rest by properties."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbdserve.sequences import Sequences

K = 1 << 10
M = 1 << 20
SLACK, SMALLEST, LARGEST = 16 * M, 64 * K, 16 * M


def sequences(**other):
    return Sequences(**{"slack": SLACK, "smallest": SMALLEST, "largest": LARGEST} | other)


def run(found, requests):
    return [found.observe(offset, length) for offset, length in requests]


def in_order(begin, count, length):
    return [(begin + number * length, length) for number in range(count)]


def shuffled_within(requests, window, seed=1):
    """As `window` requests in flight reach the server, each overtaken by that many at most."""
    source = random.Random(seed)
    places = [number + source.uniform(0, window) for number in range(len(requests))]
    return [request for _, request in sorted(zip(places, requests, strict=True))]


def interleaved(*readers, seed=1):
    source, order = random.Random(seed), []
    readers = [list(reversed(reader)) for reader in readers]
    while readers := [reader for reader in readers if reader]:
        order.append(source.choice(readers).pop())
    return order


@pytest.mark.parametrize(
    ("length", "wanted"),
    [
        # nothing before three requests and 64 KiB, then as much as was read in order
        (64 * K, [0, 0, 192 * K, 256 * K, 320 * K]),
        (16 * K, [0, 0, 0, 64 * K, 80 * K, 96 * K]),
        (8 * M, [0, 0, 16 * M, 16 * M]),
    ],
)
def test_the_window_grows_with_what_was_read_in_order(length, wanted):
    for begin in (0, 5 * M + 512):
        requests = in_order(begin, len(wanted), length)
        for (offset, _), window, ahead in zip(
            requests, wanted, run(sequences(), requests), strict=True
        ):
            assert ahead == range(offset + length, offset + length + window)


def test_proof_can_be_asked_for_apart_from_the_window():
    found = sequences(smallest=4 * M, proof=256 * K)
    assert list(map(len, run(found, in_order(0, 5, 64 * K)))) == [0, 0, 0, 4 * M, 4 * M]
    found = sequences(smallest=64 * K, proof=1 * M)
    assert list(map(len, run(found, in_order(0, 5, 256 * K)))) == [0, 0, 0, 1 * M, 1 * M + 256 * K]


def test_a_jump_begins_anew_and_the_old_place_is_remembered():
    found = sequences()
    run(found, in_order(0, 100, 64 * K))
    assert not found.observe(500 * M, 64 * K)
    assert not found.observe(500 * M + 64 * K, 64 * K)
    assert len(found.observe(500 * M + 128 * K, 64 * K)) == 192 * K
    assert len(found.observe(100 * 64 * K, 64 * K)) == 101 * 64 * K


@pytest.mark.parametrize(
    "requests",
    [
        pytest.param([(random.Random(at).randrange(1 << 40), 4 * K) for at in range(2000)], id="r"),
        pytest.param(list(reversed(in_order(0, 2000, 4 * K))), id="backwards"),
        pytest.param([(at * 128 * K, 4 * K) for at in range(2000)], id="strides"),
        pytest.param([(0, 4 * K)] * 100, id="the same again"),
        pytest.param([(0, 1 * M), (256 * K, 4 * K), (512 * K, 4 * K)] * 10, id="within another"),
        pytest.param(in_order(0, 2, 32 * M), id="two large ones"),
        pytest.param([(0, 0), (0, 0), (0, 0), (4 * K, 0)], id="nothing at all"),
    ],
)
def test_who_does_not_go_in_order_is_offered_nothing(requests):
    assert not any(run(sequences(), requests))


def test_random_reads_in_a_small_area_are_not_taken_for_a_reader_in_order():
    source = random.Random(7)
    requests = [(source.randrange(4096) * 4 * K, 4 * K) for _ in range(5000)]
    offered = {at for ahead in run(sequences(), requests) if ahead for at in (ahead.start,)}
    assert len(offered) <= 10


def served(found, requests):
    """Tell for each request whether its first byte had been offered before it came."""
    ready = [range(0)]
    answers = []
    for offset, length in requests:
        answers.append(any(offset in ahead for ahead in ready))
        if ahead := found.observe(offset, length):
            ready = [*ready[-500:], ahead]
    return answers


CLIENTS = {
    "nbdcopy": interleaved(
        *(shuffled_within(in_order(at * 128 * M, 512, 256 * K), 64, seed=at) for at in range(4))
    ),
    "nbdcopy, as its requests arrive": interleaved(
        *(in_order(at * 128 * M, 512, 256 * K) for at in range(4))
    ),
    "qemu": shuffled_within(in_order(3 * M, 1000, 64 * K), 16),
    "qemu-img": shuffled_within(in_order(0, 200, 2 * M), 8),
    "thirty-two readers": interleaved(*(in_order(at << 30, 100, 128 * K) for at in range(32))),
    "one among random ones": interleaved(
        in_order(0, 500, 128 * K),
        [((1 << 40) + random.Random(at).randrange(1 << 40), 4 * K) for at in range(1500)],
    ),
    "overlapping": [(at * 48 * K, 64 * K) for at in range(500)],
    "odd sizes": [(at * 333_333, 333_333) for at in range(500)],
}


@pytest.mark.parametrize("client", CLIENTS)
def test_readers_in_order_find_what_they_ask_for(client):
    requests = CLIENTS[client]
    answers = served(sequences(), requests)
    late = answers[len(answers) // 4 :] if "random" not in client else answers
    share = sum(late) / len(late)
    wanted = 0.23 if "random" in client else 0.97
    assert share >= wanted


@pytest.mark.parametrize("length", [4 * K, 1 * M, 32 * M])
def test_a_request_that_is_observed_twice_counts_once(length):
    once, twice = sequences(), sequences()
    requests = in_order(0, 100, length)
    again = [request for request in requests for _ in range(2)]
    assert run(once, requests) == run(twice, again)[1::2]
    assert len(once) == len(twice) == 1


def test_a_hole_that_is_skipped_does_not_end_a_reader():
    found = sequences()
    requests = [(at * 1 * M + at // 8 * 64 * K, 1 * M) for at in range(200)]
    windows = list(map(len, run(found, requests)))
    assert min(windows[3:]) >= 3 * M


def test_what_another_reader_has_had_is_not_offered():
    found = sequences()
    run(found, in_order(128 * M, 256, 256 * K))
    before = run(found, in_order(96 * M, 128, 256 * K))
    assert max(ahead.stop for ahead in before) == 128 * M
    assert before[-1] == range(128 * M, 128 * M)
    # but whoever goes on through it is a reader of its own
    within = run(found, in_order(128 * M, 8, 256 * K))
    assert len(within[1]) == LARGEST


def test_a_second_reader_of_the_same_is_served_too():
    found = sequences()
    run(found, in_order(0, 1000, 256 * K))
    again = run(found, in_order(0, 100, 256 * K))
    assert list(map(len, again[:4])) == [0, 0, 768 * K, 1 * M]
    assert len(again[-1]) == LARGEST


def test_what_came_early_is_not_counted():
    found = sequences()
    run(found, in_order(0, 4, 64 * K))
    assert found.observe(320 * K, 64 * K) == range(256 * K, 256 * K + 64 * K + 256 * K)
    assert found.observe(8 * M, 64 * K) == range(256 * K, 576 * K)


REQUESTS = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 40)), max_size=120)


@given(REQUESTS, st.integers(1, 3), st.integers(0, 60), st.integers(1, 30), st.integers(0, 60))
def test_whatever_is_asked_memory_and_offers_are_bounded(requests, streams, slack, smallest, more):
    largest = smallest + more
    found = Sequences(streams=streams, slack=slack, smallest=smallest, largest=largest)
    asked = set()
    for offset, length in requests:
        ahead = found.observe(offset, length)
        asked.update(range(offset, offset + length))
        assert len(found) <= streams * 8
        assert len(set(ahead) - asked) <= largest
        assert not ahead or ahead.start - 1 in asked
        assert sorted(found._stretches) == found._fronts
        assert all(one.front == front for front, one in found._stretches.items())


@given(st.permutations(range(12)), st.integers(0, 1000))
def test_any_order_within_the_slack_comes_to_the_same(order, begin):
    found = Sequences(slack=48, smallest=4, largest=64)
    run(found, in_order(begin, 3, 4))
    ends = run(found, [(begin + 12 + number * 4, 4) for number in order])
    assert ends[-1] == range(begin + 60, begin + 120)
    assert len(found) == 1


@given(
    st.lists(st.integers(4, 64), min_size=4, max_size=40),
    st.lists(st.integers(0, 1 << 20).map(lambda at: (1 << 30) + (at << 10)), max_size=100),
    st.randoms(use_true_random=False),
)
def test_a_reader_in_order_is_seen_whoever_reads_between(lengths, others, source):
    found = Sequences(streams=64, slack=256, smallest=16, largest=1024, proof=12)
    at = 0
    mixed = sorted([1] * len(lengths) + [0] * len(others), key=lambda _: source.random())
    for step, own in enumerate(mixed):
        if not own:
            found.observe(others.pop(), 1)
            continue
        length = lengths.pop()
        ahead = found.observe(at, length)
        at += length
        if mixed[: step + 1].count(1) >= 3:
            assert ahead == range(at, at + min(1024, max(16, at)))
