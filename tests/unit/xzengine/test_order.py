"""Readers that go block after block are recognised, holes or not; others are not."""

import random

import pytest

from nbdserve.xzengine.order import Order


def order(blocks=100, empty=()):
    return Order(blocks, lambda number: number in empty)


def noted(order, numbers):
    return [order.note(number, at_start=True) for number in numbers]


def test_it_counts_the_blocks_before_that_were_asked_for():
    assert noted(order(), [4, 5, 6, 7, 6]) == [0, 1, 2, 3, 2]


def test_who_jumps_into_the_middle_of_neighbours_is_not_in_order():
    found = order()
    assert [found.note(number, at_start=False) for number in (4, 5, 6)] == [0, 0, 0]
    assert noted(found, [7, 8, 6, 9]) == [0, 1, 0, 3]
    assert found.note(8, at_start=False) == 2, "it was entered at its beginning before"


def test_holes_between_do_not_count():
    found = order(empty={5, 6, 7, 9})
    assert noted(found, [4, 8, 10]) == [0, 1, 2]
    assert found.after(4, 3) == [8, 10, 11]


def test_four_readers_at_once_are_each_recognised():
    found = order()
    for step in range(3):
        told = noted(found, [start + step for start in (0, 20, 40, 60)])
    assert told == [2] * 4


def test_a_random_reader_is_not():
    assert not any(noted(order(), random.Random(1).sample(range(0, 100, 3), 30)))


def test_a_block_is_passed_when_its_successor_was_asked_for():
    found = order(empty={5})
    noted(found, [4])
    assert not found.is_passed(4)
    noted(found, [6])
    assert found.is_passed(4)
    assert not found.is_passed(6)
    assert found.is_passed(50), "nobody reads it"


@pytest.mark.parametrize("number", [0, 1, 98, 99])
def test_the_ends_are_no_trouble(number):
    found = order()
    assert not found.note(number, at_start=True)
    assert found.after(number, 5) == list(range(number + 1, min(number + 6, 100)))


def test_a_block_is_expected_when_one_shortly_before_it_was_asked_for():
    found = order(empty={6})
    noted(found, [4])
    assert [found.is_expected(number, 2) for number in range(4, 10)] == [
        False, True, True, True, False, False,
    ]  # fmt: skip
