"""How long a step may wait."""

import asyncio

import pytest

from minicloud.deadline import seconds_text, time_left, within


def test_a_step_has_its_own_time_where_no_whole_ends():
    assert time_left(7) == 7
    assert time_left(None) is None
    with within(None):
        assert time_left(7) == 7


def test_a_step_has_no_more_than_what_is_left_of_the_whole():
    with within(5):
        assert time_left(1) == 1
        assert time_left(60) == pytest.approx(5, abs=1)
        assert time_left(None) == pytest.approx(5, abs=1)
    assert time_left(60) == 60


def test_an_inner_whole_cannot_outlive_an_outer_one():
    with within(5), within(100):
        assert time_left(60) <= 5
        with within(None):
            assert time_left(60) <= 5
        with within(1):
            assert time_left(60) <= 1


def test_what_is_over_leaves_nothing():
    with within(-1):
        assert time_left(60) == 0


async def test_a_task_keeps_the_whole_it_was_begun_under():
    async def left():
        return time_left(60)

    with within(5):
        task = asyncio.create_task(left())
    assert await task <= 5
    assert await left() == 60


@pytest.mark.parametrize(("seconds", "text"), [(3, "3 s"), (0.25, "0.2 s"), (None, "for ever")])
def test_a_time_is_written_as_short_as_it_is_true(seconds, text):
    assert seconds_text(seconds) == text
