"""Memory and time as people read them."""

from datetime import UTC, datetime, timedelta

import pytest

from minicloud.commands.amounts import age_text, memory_text


@pytest.mark.parametrize(
    ("size", "text"),
    [(16321085440, "15.2G"), (1 << 30, "1.0G"), (512 << 20, "512M"), (0, "0.0G"),
     (-(3 << 29), "-1.5G")],
)  # fmt: skip
def test_memory(size, text):
    assert memory_text(size) == text


@pytest.mark.parametrize(
    ("age", "text"),
    [
        (timedelta(seconds=40), "40s"),
        (timedelta(minutes=5, seconds=59), "5m"),
        (timedelta(hours=23), "23h"),
        (timedelta(days=12, hours=20), "12d"),
        (timedelta(seconds=-3), "0s"),  # the clocks differ
    ],
)
def test_age(age, text):
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert age_text(now - age, now) == text
