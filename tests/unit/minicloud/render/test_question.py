import asyncio
import os
import pty
import sys

import pytest

from minicloud.render.question import ask


@pytest.fixture
def keyboard(monkeypatch):
    """What is typed at the terminal that standard input is."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "r") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield ours
    os.close(ours)


@pytest.mark.parametrize(
    ("typed", "answer"),
    [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False), ("yesterday\n", False)],
)
async def test_only_yes_is_yes(keyboard, typed, answer):
    os.write(keyboard, typed.encode())
    assert await ask("go on?") is answer


async def test_where_nobody_sits_the_answer_is_no(monkeypatch):
    with open(os.devnull) as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        assert await ask("go on?") is False


async def test_a_question_can_be_given_up(keyboard):
    asking = asyncio.create_task(ask("go on?"))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    os.write(keyboard, b"y\n")
    assert await ask("again?") is True
