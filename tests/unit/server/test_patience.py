"""Patience is earned, shared fairly, and given up where it does not pay."""

import pytest

from nbdserve.server.patience import Patience


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(Patience, "_cores", 2)
    monkeypatch.setattr(Patience, "_latest", None)


def test_a_connection_that_is_served_alone_waits():
    patience = Patience()
    assert not patience.tries()  # nobody knows yet that it is alone
    assert patience.tries()


def test_connections_served_in_turn_do_not_wait():
    one, other = Patience(), Patience()
    assert not any(patience.tries() for _ in range(8) for patience in (one, other))


def test_a_connection_is_alone_until_another_is_served():
    one, other = Patience(), Patience()
    one.tries()
    assert one.is_alone
    other.tries()
    assert not one.is_alone


def test_misses_use_it_up_and_it_is_tried_again_now_and_then():
    patience = Patience()
    patience.tries()
    granted = 0
    for _ in range(1000):
        if patience.tries():
            granted += 1
            patience.learn(hit=False)
    assert 4 < granted < 30


def test_a_hit_restores_it():
    patience = Patience()
    patience.tries()
    for _ in range(100):
        if patience.tries():
            patience.learn(hit=False)
    patience.learn(hit=True)
    assert all(patience.tries() for _ in range(4))


def test_with_one_core_the_client_needs_it(monkeypatch):
    monkeypatch.setattr(Patience, "_cores", 1)
    patience = Patience()
    assert not any(patience.tries() for _ in range(8))
