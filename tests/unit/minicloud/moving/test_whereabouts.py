"""Where a guest is after a move that failed."""

import pytest

from minicloud.model.guest import GuestState
from minicloud.moving.whereabouts import whereabouts

RUNNING, PAUSED, OFF = GuestState.RUNNING, GuestState.PAUSED, GuestState.SHUTOFF


@pytest.mark.parametrize(
    ("here", "there", "text", "is_here", "may_go_on"),
    [
        (RUNNING, OFF, "web1 still runs on a", True, False),
        (RUNNING, PAUSED, "web1 still runs on a", True, False),
        (RUNNING, None, "web1 still runs on a", True, False),
        (GuestState.BLOCKED, OFF, "web1 still runs on a", True, False),
        (PAUSED, RUNNING, "web1 runs on b all the same", False, False),
        (OFF, RUNNING, "web1 runs on b all the same", False, False),
        (None, RUNNING, "web1 runs on b all the same", False, False),
        (None, OFF, "a does not say whether web1 still runs there", False, False),
        (OFF, OFF, "web1 is shut off on a; see its log there", False, False),
        (PAUSED, OFF, "it was left paused on a, and goes on there", True, True),
    ],
)
def test_every_pair_of_answers_is_told_truly(here, there, text, is_here, may_go_on):
    found = whereabouts("web1", "a", "b", here, there)

    assert (found.text, found.is_here, found.may_go_on) == (text, is_here, may_go_on)


def test_a_paused_guest_stays_so_while_the_target_may_run_it():
    found = whereabouts("web1", "a", "b", PAUSED, None)

    assert not found.may_go_on
    assert "minicloud resume web1" in found.text


def test_a_guest_paused_on_both_goes_on_on_neither_until_the_remnant_is_gone():
    found = whereabouts("web1", "a", "b", PAUSED, PAUSED)

    assert (found.is_here, found.may_go_on) == (True, False)
    assert "paused on a and on b" in found.text
