"""What a progress bar says."""

import io
from collections import deque

import pytest

from nbdserve.nbdctl.meter import Meter, progress_text

MIB = 1 << 20


@pytest.mark.parametrize(
    ("samples", "total", "text"),
    [
        ([(0, 0)], 100 * MIB, "  0%  0 bytes of 100 MiB"),
        ([(0, 0), (10, 50 * MIB)], 100 * MIB, " 50%  50 MiB of 100 MiB  5 MiB/s  ETA 0:10"),
        ([(5, 90 * MIB), (6, 91 * MIB)], 1000 * MIB,
         "  9%  91 MiB of 1000 MiB  1 MiB/s  ETA 15:09"),
        ([(0, 5), (9, 5)], 10, " 50%  5 bytes of 10 bytes"),
        ([(0, 0)], 0, "100%  0 bytes of 0 bytes"),
    ],
)  # fmt: skip
def test_it_tells_part_rate_and_time_left(samples, total, text):
    assert progress_text(deque(samples), total, bar=False) == text


def test_the_bar_is_as_long_as_the_part():
    assert progress_text(deque([(0, 12)]), 24, bar=True).startswith("[############            ]")


def test_a_plain_line_comes_for_each_tenth_at_most():
    stream = io.StringIO()
    meter = Meter(1000, stream)
    for done in range(0, 1001, 7):
        meter.show(done)
    meter.show(1000)
    meter.close()
    lines = stream.getvalue().splitlines()
    assert [int(line[:3]) for line in lines] == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
