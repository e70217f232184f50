"""A subscription, in words virt-customize still has."""

import subprocess

from minicloud.customization.command import Command
from minicloud.customization.subscription import WORDS, spelled_out, undone

GIVEN = (
    Command("sm-credentials", "o'me:file:", b"it's $HOME `x` \\\n"),
    Command("hostname", "web1"),
    Command("sm-register"),
    Command("sm-attach", "pool:8a 85"),
    Command("sm-attach", "auto"),
    Command("update"),
    Command("sm-unregister"),
)
SPELLED = (
    ("hostname", "web1"),
    ("run", ""),
    ("run-command", "subscription-manager attach --pool='8a 85'"),
    ("run-command", "subscription-manager attach --auto"),
    ("update", ""),
    ("run-command", "subscription-manager unregister"),
)


def fake(folder):
    path = folder / "subscription-manager"
    path.write_text('#!/bin/sh\nfor word; do echo "$word"; done\n')
    path.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin", "HOME": "/nowhere"}


def test_it_is_spelled_out_in_order():
    made = spelled_out(GIVEN)
    assert tuple((one.word, one.before) for one in made) == SPELLED
    assert not WORDS & {one.word for one in made}


def test_the_script_registers_with_exactly_what_was_given(tmp_path):
    script = spelled_out(GIVEN)[1].file
    told = subprocess.run(
        ["sh", "-c", script], env=fake(tmp_path), capture_output=True, text=True, check=True
    )
    assert told.stdout.splitlines() == [
        "register", "--username=o'me", "--password=it's $HOME `x` \\"
    ]  # fmt: skip


def test_what_was_to_be_given_back_is_given_back_after_a_failure(tmp_path):
    (command,) = undone(GIVEN)
    assert command.word == "run-command"
    told = subprocess.run(
        ["sh", "-c", command.before], env=fake(tmp_path), capture_output=True, text=True, check=True
    )
    assert told.stdout == "unregister\n"


def test_nothing_is_given_back_that_was_to_stay():
    assert undone(GIVEN[:-1]) == ()
    assert undone((Command("sm-unregister"),)) == ()
