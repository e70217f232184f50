"""`minicloud completion SHELL`: what the shell evaluates; it needs no inventory."""

import argparse
from typing import Any, Final

from minicloud.completion import SHELLS, snippet
from minicloud.model.view import Lines, Outcome

__all__ = ["ALONE", "CHANGES", "HELP", "add_arguments", "run"]

HELP: Final = "print what makes a shell complete minicloud's words"
CHANGES: Final = False
ALONE: Final = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("shell", choices=SHELLS, help='eval "$(minicloud completion bash)"')


async def run(context: Any, arguments: argparse.Namespace) -> Outcome:  # noqa: ARG001 -- the protocol's
    """Carry it out; the context is None."""
    text = snippet(arguments.shell)
    return Outcome({"shell": arguments.shell, "snippet": text}, (Lines(tuple(text.splitlines())),))
