"""Making certain that a node is dead."""

import argparse

import pytest

from minicloud.commands.context import Context
from minicloud.commands.fencing import add_fencing, fence
from minicloud.errors import NodeError, UsageError


class Silence:
    """Nobody watches."""

    def step(self, text):
        pass


def context(answer):
    """A run whose operator gives an answer; the questions are kept."""
    questions = []

    async def ask(question):
        questions.append(question)
        return answer

    made = Context(
        inventory=None, cluster=None, storage=None, only=(), dry_run=False, timeout=None,
        report=Silence(), ask=ask, terminal=None,
    )  # fmt: skip
    return made, questions


def arguments(*words):
    parser = argparse.ArgumentParser()
    add_fencing(parser)
    return parser.parse_args(words)


async def test_the_operator_is_asked_and_believed():
    run, questions = context(True)

    await fence(run, arguments(), "ham1", 2, seen="ham1.lan is up, but nothing listens on port 22")

    (question,) = questions
    assert question.startswith(
        "ham1: ham1.lan is up, but nothing listens on port 22. Is ham1 really off?"
    )
    assert "its 2 guests would run twice" in question


async def test_without_an_answer_nothing_is_started_and_what_to_say_is_told():
    run, _ = context(False)

    with pytest.raises(UsageError, match=r"--fenced.*--fence-command"):
        await fence(run, arguments(), "ham1", 1)


async def test_who_says_fenced_is_not_asked():
    run, questions = context(False)

    await fence(run, arguments("--fenced"), "ham1", 1)

    assert questions == []


async def test_the_command_gets_the_nodes_name_and_its_success_is_enough(tmp_path):
    run, questions = context(False)

    await fence(
        run, arguments("--fence-command", f"echo $MINICLOUD_NODE >{tmp_path}/said"), "ham1", 1
    )

    assert (tmp_path / "said").read_text() == "ham1\n"
    assert questions == []


async def test_a_command_that_fails_is_told_with_its_words():
    run, _ = context(True)

    with pytest.raises(
        NodeError, match="failed with status 3: no route to its switch; nothing was"
    ):
        await fence(
            run, arguments("--fence-command", "echo no route to its switch >&2; exit 3"), "ham1", 1
        )
