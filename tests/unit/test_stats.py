import pytest

from nbdserve.stats import Counters, OperationCounters


def test_what_was_counted_is_summed():
    counters = OperationCounters()
    counters.succeeded(100, 4096)
    counters.succeeded(300, 512)
    counters.failed(200)
    counted = counters.snapshot()
    assert (counted.count, counted.errors, counted.bytes) == (3, 1, 4608)
    assert counted.nanoseconds == 600
    assert counted.mean == pytest.approx(200e-9)


@pytest.mark.parametrize(
    ("nanoseconds", "bucket"), [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (1023, 10), (1024, 11)]
)
def test_a_duration_falls_into_the_bucket_of_its_power_of_two(nanoseconds, bucket):
    counters = OperationCounters()
    counters.succeeded(nanoseconds, 0)
    buckets = counters.snapshot().buckets
    assert buckets[bucket] == 1
    assert sum(buckets) == 1


def test_a_duration_beyond_the_last_bucket_is_counted_in_it():
    counters = OperationCounters()
    counters.succeeded(1 << 60, 0)
    assert counters.snapshot().buckets[-1] == 1


def test_a_percentile_is_the_upper_bound_of_its_bucket():
    counters = OperationCounters()
    for _ in range(99):
        counters.succeeded(1000, 0)
    counters.succeeded(1_000_000, 0)
    counted = counters.snapshot()
    assert counted.percentile(0.5) == 1024e-9
    assert counted.percentile(0.99) == 1024e-9
    assert counted.percentile(1.0) == pytest.approx((1 << 20) / 1e9)


def test_nothing_counted_is_zero_everywhere():
    counted = OperationCounters().snapshot()
    assert counted.mean == 0
    assert counted.percentile(0.99) == 0


def test_a_snapshot_does_not_change_afterwards():
    counters = Counters(["read", "write"])
    before = counters.snapshot()
    counters["read"].succeeded(10, 1)
    assert before["read"].count == 0
    assert counters.snapshot()["read"].count == 1
    assert list(before) == ["read", "write"]
