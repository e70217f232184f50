"""Keys and escapes; the console itself is in tests/interop, on a real guest."""

import argparse

import pytest

from minicloud.commands.console import parse_escape, until_escape


@pytest.mark.parametrize(
    ("typed", "keys", "is_over"),
    [
        (b"ls\r", b"ls\r", False),
        (b"\x1d", b"", True),
        (b"ls\x1drm -rf /", b"ls", True),  # pasted: nothing after the escape is typed
        (b"\x03\x1a\x11", b"\x03\x1a\x11", False),  # ^C and the like are the guest's
    ],
)
def test_the_escape_key_ends_it_and_nothing_else_does(typed, keys, is_over):
    assert until_escape(typed, b"\x1d") == (keys, is_over)


@pytest.mark.parametrize(("text", "key"), [("^]", b"\x1d"), ("^a", b"\x01"), ("^A", b"\x01")])
def test_an_escape_key_is_written_as_stty_writes_it(text, key):
    assert parse_escape(text) == key


@pytest.mark.parametrize("text", ["x", "^", "^1", "^]]", ""])
def test_only_a_control_key_can_be_the_escape(text):
    with pytest.raises(argparse.ArgumentTypeError):
        parse_escape(text)
