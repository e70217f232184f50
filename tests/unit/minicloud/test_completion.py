"""Completion: what an argument is called says what completes it; nothing is asked or run."""

import os
import subprocess
import sys

import pytest

from minicloud.completion import SHELLS, snippet
from minicloud.errors import UsageError

INVENTORY = """
[nodes.ham0]
[nodes.ham1]
host = 7
[nodes.egg]
[templates.debian]
nonsense = true
"""

PROGRAM = """
import argparse
from pathlib import Path
from minicloud.completion import complete

def parser(*commands):
    made = argparse.ArgumentParser(prog="minicloud")
    made.add_argument("-c", "--config", type=Path, metavar="FILE")
    parts = made.add_subparsers(dest="command", metavar="COMMAND")
    for name in ("boot", "drain", "list"):
        part = parts.add_parser(name)
        if name not in commands:
            continue
        part.add_argument("--node", metavar="NODE")
        part.add_argument("--cloud-init", metavar="FILE")
        part.add_argument("--memory", metavar="SIZE")
        if name == "boot":
            part.add_argument("template", metavar="TEMPLATE")
            part.add_argument("name", metavar="[NODE:]NAME")
        if name == "drain":
            part.add_argument("nodes", nargs="+", metavar="NODE")
    return made

complete(parser, ("boot", "drain", "list"))
print("went on")
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Make a folder with an inventory in part wrong, and a template that must not be run."""
    (tmp_path / "minicloud.toml").write_text(INVENTORY)
    (tmp_path / "templates").mkdir()
    script = tmp_path / "templates" / "fedora.template"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    script.chmod(0o755)
    monkeypatch.setenv("MINICLOUD_CONFIG", str(tmp_path / "minicloud.toml"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    monkeypatch.delenv("MINICLOUD_PATH", raising=False)
    return tmp_path


def run(folder, **environment):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, **environment}, cwd=folder,
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def completions(folder):
    """Complete a line as the snippet asks for it: `completions(line)`."""

    def ask(line):
        answer = folder / "answer"
        run(
            folder,
            _ARGCOMPLETE="1", _ARGCOMPLETE_IFS="\n", _ARGCOMPLETE_SUPPRESS_SPACE="1",
            _ARGCOMPLETE_STDOUT_FILENAME=str(answer),
            COMP_LINE=line, COMP_POINT=str(len(line)), COMP_TYPE="9",
        )  # fmt: skip
        return sorted(answer.read_text().split("\n")) if answer.stat().st_size else []

    return ask


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("minicloud ", ["--config", "--help", "-c", "-h", "boot", "drain", "list"]),
        ("minicloud d", ["drain"]),
        ("minicloud boot --m", ["--memory"]),
        ("minicloud list --n", ["--node"]),
        ("minicloud boot d", ["debian"]),
        ("minicloud boot f", ["fedora"]),
        ("minicloud boot debian h", ["ham0:", "ham1:"]),
        ("minicloud drain e", ["egg"]),
        ("minicloud drain egg h", ["ham0", "ham1"]),
        ("minicloud list --node ham1", ["ham1"]),
        ("minicloud list --memory ", []),
        ("minicloud -c mini", ["minicloud.toml"]),
        ("minicloud boot --cloud-init mini", ["minicloud.toml"]),
        ("minicloud -c 'open boot d", []),
    ],
)
def test_an_argument_is_completed_by_what_it_is_called(completions, line, words):
    assert completions(line) == words


def test_no_template_is_run(completions, folder):
    assert completions("minicloud boot fed") == ["fedora"]
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    "text", [b"[nodes.ham0", b"\xff", b"nodes = 3", b""], ids=["half", "bytes", "number", "empty"]
)
def test_a_broken_inventory_breaks_nothing(completions, folder, text):
    (folder / "minicloud.toml").write_bytes(text)
    assert completions("minicloud boot f") == ["fedora"]
    assert completions("minicloud drain h") == []
    assert completions("minicloud dr") == ["drain"]


def test_no_inventory_breaks_nothing(completions, folder, monkeypatch):
    monkeypatch.setenv("MINICLOUD_CONFIG", "/no/such")
    assert completions("minicloud boot d") == []
    monkeypatch.delenv("MINICLOUD_CONFIG")
    assert completions("minicloud drain h") == []


def test_the_inventory_of_the_line_counts(completions, folder):
    (folder / "other.toml").write_text("[nodes.spam]")
    assert completions("minicloud -c other.toml drain s") == ["spam"]


def test_a_program_nobody_asks_to_complete_goes_on(folder):
    assert run(folder) == "went on\n"


@pytest.mark.parametrize("shell", SHELLS)
def test_a_snippet_is_for_its_shell_and_this_program(shell):
    text = snippet(shell)
    assert "minicloud" in text
    assert ("function __fish" in text) == (shell == "fish")


def test_argcomplete_missing_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "argcomplete.shell_integration", None)
    with pytest.raises(UsageError, match="pip install argcomplete"):
        snippet("bash")
