"""The command line of `minicloud`, and which module carries out what.

A command's module is imported when that command is asked for, so that `--help` loads neither
asyncssh nor libvirt. Exit status: 0 all, 1 partial, 2 none or usage; 130, 143 and 129 for a command
that was interrupted, told to end, or left by its terminal, after it has undone what it had begun.
"""

import argparse
import importlib
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Final, NoReturn

from minicloud import __version__
from minicloud.commands.values import typed
from minicloud.completion import complete
from minicloud.errors import MinicloudError, UsageError
from minicloud.model.outcome import status_of_signal
from nbdserve.errors import ConfigError
from nbdserve.params import TIMEOUT, closest

__all__ = ["COMMANDS", "main", "parser"]

COMMANDS: Final[Mapping[str, str]] = {
    "status": "what each node has, uses and has free, or why it does not answer",
    "list": "the guests of all nodes",
    "info": "a guest in full: state, disks, exports, addresses, where it came from",
    "boot": "start a new guest from a template's image",
    "start": "start guests that are off",
    "stop": "stop guests: ask first, force after a time",
    "reboot": "start guests anew: ask first, reset after a time",
    "resume": "let paused guests go on, once their disks are served again",
    "destroy": "force guests off and remove what was their own",
    "ip": "where a guest can be reached: by lease, guest agent and ARP",
    "console": "a guest's serial console; ^] ends it",
    "viewer": "a guest's screen, in virt-viewer",
    "ssh": "log in to a guest through its node, or run a command there",
    "migrate": "move a guest to another node while it runs; both ends are checked first",
    "drain": "move all guests of a node to the others",
    "recover": "start the guests of a node that died on the others",
    "on": "wake a node",
    "off": "switch off a node that has been drained",
    "gc": "remove disks, seeds and records whose guest is gone",
    "customize": "change a guest's disk before its start, by virt-customize",
    "image": "the catalogue of templates, and a check of their images",
    "doctor": "the whole way to each node and to the exports, each failure with its remedy",
    "completion": "print what makes a shell complete minicloud's words",
}
"""Each command's name and its line of help; its module is `minicloud.commands.NAME`."""

_DESCRIPTION: Final = "Parallel libvirt over ssh, with guests whose disks are nbdserve exports."
_NO_COMMAND: Final = re.compile(r"argument COMMAND: invalid choice: '(.*?)'")


class _Parser(argparse.ArgumentParser):
    """Raises UsageError instead of printing a usage and leaving."""

    def error(self, message: str) -> NoReturn:
        if found := _NO_COMMAND.search(message):
            message = f"unknown command {found[1]!r}; {closest(found[1], COMMANDS)}"
        raise UsageError(f"{message}; see {self.prog} --help")


def parser(*commands: str) -> argparse.ArgumentParser:
    """Make the parser.

    Args:
        commands: those whose own options are wanted; the modules of others are not imported.
    """
    made = _Parser(prog="minicloud", description=_DESCRIPTION, allow_abbrev=False)
    add = made.add_argument
    add("-V", "--version", action="version", version=f"minicloud {__version__}")
    add(
        "-c", "--config", type=Path, metavar="FILE",
        help="the inventory (default $MINICLOUD_CONFIG or minicloud/minicloud.toml in the user's "
        "configuration folder)",
    )  # fmt: skip
    add("--ssh-config", type=Path, metavar="FILE", help="instead of ~/.ssh/config")
    add(
        "--from-ssh-config", metavar="PATTERN",
        help="print a first inventory of the hosts in ssh_config that match, e.g. 'ham*', and end",
    )  # fmt: skip
    add("-v", "--verbose", action="count", default=0, help="log what is done; twice: all of it")
    parts = made.add_subparsers(dest="command", metavar="COMMAND")
    for name, text in COMMANDS.items():
        part = parts.add_parser(name, help=text, description=f"{text}.", allow_abbrev=False)
        if name in commands:
            module = _module(name)
            module.add_arguments(part)
            _add_common(part, changes=module.CHANGES)
    return made


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its status."""
    complete(parser, COMMANDS)
    words = sys.argv[1:] if argv is None else argv
    try:
        status = _run(words)
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = status_of_signal(signal.SIGINT)
    except BrokenPipeError:
        # the reader of our output has gone; the interpreter's last flush must not complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except (MinicloudError, ConfigError) as exc:
        status = _refuse(str(exc), words)
    except OSError as exc:
        where = "" if exc.filename is None else f"{exc.filename}: "
        status = _refuse(f"{where}{exc.strerror or exc}", words)
    sys.exit(status)


def _run(argv: Sequence[str]) -> int:
    # a file or a guest may be called as a command is; which one is asked for, the parser tells
    arguments = parser(*(word for word in argv if word in COMMANDS)).parse_args(argv)
    _log(arguments.verbose)
    if arguments.from_ssh_config is not None:
        return _first_inventory(arguments)
    if arguments.command is None:
        raise UsageError(f"no command is given; {closest('', COMMANDS)}; see minicloud --help")
    from minicloud.run import run_command  # noqa: PLC0415 -- loads asyncssh and rich

    return run_command(_module(arguments.command), arguments)


def _first_inventory(arguments: argparse.Namespace) -> int:
    from minicloud.inventory.sshconfig import inventory_from_ssh_config  # noqa: PLC0415 -- rare

    sys.stdout.write(inventory_from_ssh_config(arguments.from_ssh_config, arguments.ssh_config))
    return 0


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"minicloud.commands.{command.replace('-', '_')}")


def _add_common(part: argparse.ArgumentParser, *, changes: bool) -> None:
    """Add the options that every command has."""
    part.add_argument("--json", action="store_true", help="print one JSON document")
    part.add_argument(
        "--timeout",
        type=typed(TIMEOUT.parse),
        metavar="TIME",
        help="for the whole command, e.g. 20s",
    )
    part.add_argument(
        "--node", action="append", default=[], metavar="NODE",
        help="only this node; may be repeated",
    )  # fmt: skip
    if changes:
        part.add_argument(
            "-n", "--dry-run", action="store_true", help="change nothing, say what would be"
        )


def _log(verbose: int) -> None:
    level = {0: logging.ERROR, 1: logging.INFO}.get(verbose, logging.DEBUG)
    logging.basicConfig(level=level, format="%(name)s: %(message)s")
    # one host that counts twice has all its guests twice: that is said unasked
    logging.getLogger("minicloud.inventory").setLevel(min(level, logging.WARNING))
    if verbose < 3:
        logging.getLogger("asyncssh").setLevel(max(level, logging.WARNING))


def _refuse(message: str, words: Sequence[str]) -> int:
    """Say why nothing was done, as a document where one was asked for; return the exit status."""
    _complain(message)
    if "--json" in words:  # it may be what could not be parsed that hides it
        failure = {"node": None, "reason": "usage", "message": message, "remedy": ""}
        print(json.dumps({"errors": [failure]}, indent=2))  # noqa: T201 -- likewise
        sys.stdout.flush()
    return 2


def _complain(message: str) -> None:
    print(f"minicloud: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201 -- its voice
