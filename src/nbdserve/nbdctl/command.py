"""The command line of `nbdctl`, and which module carries out what."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from nbdserve import __version__
from nbdserve.cli import run_command
from nbdserve.errors import ConfigError
from nbdserve.nbdctl import check, export, inspect, overlay, pack, status, warm

__all__ = ["main", "parser"]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command line; the reference pages read it too."""
    made = _Parser(
        prog="nbdctl",
        description="Inspect and pack images, check configurations, watch and steer the daemon.",
    )
    made.add_argument("-V", "--version", action="version", version=f"nbdctl {__version__}")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (inspect, pack, check, status, warm, export, overlay):
        module.add_parser(commands).set_defaults(run=module.run)
    return made


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its status."""
    sys.exit(run_command("nbdctl", lambda: _run(sys.argv[1:] if argv is None else argv)))


def _run(argv: Sequence[str]) -> int:
    arguments, rest = parser().parse_known_args(argv)
    if rest:
        raise ConfigError(f"unknown option {rest[0]}; see nbdctl {arguments.command} --help")
    status: int = arguments.run(arguments)
    return status
