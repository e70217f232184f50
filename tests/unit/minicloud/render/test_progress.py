import io

import pytest

from minicloud.render import progress
from minicloud.render.progress import TerminalReporter


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """A terminal where nothing is quick: what is shown is shown at once."""
    monkeypatch.setattr(progress, "_QUIET", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


def test_a_step_that_goes_on_is_shown(terminal):
    with TerminalReporter(is_shown=True, out=terminal) as report:
        report.step("waiting for ham1")
        report.tick()
    assert "waiting for ham1" in terminal.getvalue()


def test_bytes_are_shown_as_such(terminal):
    with TerminalReporter(is_shown=True, out=terminal) as report:
        report.step("reading the image")
        report.progress(500_000, 1_000_000)
    assert "0.5/1.0 MB" in terminal.getvalue()


def test_a_quick_step_is_not_shown(terminal, monkeypatch):
    monkeypatch.setattr(progress, "_QUIET", 3600.0)
    with TerminalReporter(is_shown=True, out=terminal) as report:
        report.step("connecting")
        report.tick()
        report.progress(1, 2)
    assert terminal.getvalue() == ""


def test_nothing_is_shown_where_nobody_watches(terminal):
    with TerminalReporter(is_shown=False, out=terminal) as report:
        report.step("connecting")
        report.tick()
        report.progress(1, 2)
    assert terminal.getvalue() == ""


def test_the_terminal_can_be_given_away_and_taken_back(terminal):
    with TerminalReporter(is_shown=True, out=terminal) as report:
        report.step("first")
        report.tick()
        report.pause()
        report.step("second")
        report.tick()
    assert "second" in terminal.getvalue()


def test_a_terminal_that_was_given_away_is_left_alone_until_the_next_step(terminal):
    with TerminalReporter(is_shown=True, out=terminal) as report:
        report.step("first")
        report.tick()
        report.pause()
        before = terminal.getvalue()
        report.tick()
        assert terminal.getvalue() == before
