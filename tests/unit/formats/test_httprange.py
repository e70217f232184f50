"""Range requests, the pure half."""

import pytest

from nbdserve.formats.httprange import (
    ContentRange,
    Entity,
    backoff_ceiling,
    parse_content_range,
    parse_retry_after,
    transient_status,
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("bytes 0-9/10", ContentRange(0, 9, 10)),
        ("bytes 5-5/*", ContentRange(5, 5, None)),
        ("bytes */0", ContentRange(None, None, 0)),
        ("Bytes  1-2/3", ContentRange(1, 2, 3)),
        (None, None),
        ("", None),
        ("bytes 9-0/10", None),
        ("bytes 0-10/10", None),
        ("bytes 0-9", None),
        ("lines 0-9/10", None),
        ("bytes 0-9/10, bytes 1-2/10", None),
    ],
)
def test_content_ranges(text, found):
    assert parse_content_range(text) == found


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0.0),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_in_seconds_or_as_a_date(text, seconds):
    assert parse_retry_after(text, now=10.0) == seconds


@pytest.mark.parametrize(
    ("ours", "theirs", "part"),
    [
        (Entity(1, '"a"', None), Entity(1, '"b"', None), 'ETag "a" -> "b"'),
        (Entity(1, None, "then"), Entity(1, None, "now"), "Last-Modified then -> now"),
        (Entity(1, None, None), Entity(2, None, None), "size 1 -> 2"),
        (Entity(1, '"a"', "then"), Entity(1, '"a"', "then"), None),
        (Entity(1, '"a"', "then"), Entity(1, None, "then"), None),
        (Entity(1, '"a"', "then"), Entity(1, '"a"', None), None),
        (Entity(1, '"a"', "then"), Entity(1, None, None), 'ETag "a" -> none'),
        (Entity(1, None, "then"), Entity(1, None, None), "Last-Modified then -> none"),
        (Entity(1, None, None), Entity(1, '"a"', "then"), None),
    ],
)
def test_a_difference_of_version_is_told(ours, theirs, part):
    assert ours.difference(theirs) == part


@pytest.mark.parametrize(
    ("entity", "value"),
    [
        (Entity(1, '"a"', "then"), '"a"'),
        (Entity(1, 'W/"a"', "then"), "then"),
        (Entity(1, None, "then"), "then"),
        (Entity(1, 'W/"a"', None), None),
    ],
)
def test_if_range_takes_strong_etags_only(entity, value):
    assert entity.if_range == value


def test_what_may_go_away_is_transient():
    assert [s for s in range(400, 600) if transient_status(s)] == [
        408, 425, 429, 500, 502, 503, 504,
    ]  # fmt: skip


def test_waits_grow_and_are_bounded():
    waits = [backoff_ceiling(n) for n in range(1, 30)]
    assert waits == sorted(waits)
    assert waits[0] == 0.1
    assert waits[-1] == 10.0
