"""Time as people read it."""

from datetime import UTC, datetime, timedelta

import pytest

from minicloud.commands.amounts import age_text


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
