"""What may be taken from mirrors."""

import asyncio

import pytest

from nbdserve.sources.httpbudget import Budget, BudgetSpentError, HedgeAllowance, TokenBucket


def test_a_rate_is_kept_over_time():
    bucket = TokenBucket(1000)
    now = taken = 0
    while now < 100:
        bucket.take(777, now)
        taken += 777
        now += bucket.wait(now)
    assert taken == pytest.approx(100_000, rel=0.02)


def test_a_pause_saves_no_more_than_a_burst():
    bucket = TokenBucket(1000)
    bucket.take(250, 0)
    assert bucket.wait(0) == 0
    bucket.take(250 + 100, 3600)
    assert bucket.wait(3600) == pytest.approx(0.1)


def test_at_most_one_request_in_twenty_is_made_twice():
    allowance = HedgeAllowance()
    made = 0
    for _ in range(1000):
        allowance.earn()
        while allowance.may():
            allowance.spend()
            made += 1
    assert made == 52


def test_one_request_too_many_is_refused_with_the_key_to_raise():
    budget = Budget("http://x", max_requests=2)
    budget.take_request()
    budget.take_request()
    with pytest.raises(BudgetSpentError, match="http://x: the budget max-requests=2 is spent"):
        budget.take_request()
    assert budget.requests == 2


async def test_bytes_are_set_aside_before_they_are_asked_for():
    budget = Budget("http://x", max_bytes=100)
    budget.reserve(60)
    with pytest.raises(BudgetSpentError, match="max-bytes=100"):
        budget.reserve(41)
    budget.take_bytes(20)
    budget.release(40)  # closed early
    budget.reserve(80)
    with pytest.raises(BudgetSpentError):
        budget.reserve(1)


async def test_what_need_not_be_is_not_spared_near_the_end():
    budget = Budget("http://x", max_requests=10)
    for _ in range(9):
        assert budget.is_spare
        budget.take_request()
    assert not budget.is_spare
    budget = Budget("http://x", max_rate=1000)
    assert budget.is_spare
    budget.take_bytes(100_000)
    assert not budget.is_spare


async def test_no_budget_bounds_nothing():
    budget = Budget("http://x")
    for _ in range(1000):
        budget.take_request()
        budget.reserve(1 << 40)
        budget.take_bytes(1 << 40)
        await budget.pace()
    assert budget.is_spare


async def test_reads_wait_for_the_rate():
    budget = Budget("http://x", max_rate=1_000_000)
    loop = asyncio.get_running_loop()
    before = loop.time()
    budget.take_bytes(450_000)
    await budget.pace()
    assert loop.time() - before >= 0.19, "450 KB, of which 250 were free"
