"""`nbdctl warm EXPORT`: have a running daemon read an export once, so that its caches are full."""

import argparse
from collections.abc import Mapping
from typing import Any

from nbdserve.cli import argument_kind
from nbdserve.inspection import short_size
from nbdserve.nbdctl.daemon import add_control_option, ask
from nbdserve.nbdctl.meter import Meter
from nbdserve.nbdctl.voice import answer, answer_json, complain
from nbdserve.params import SIZE

__all__ = ["add_parser", "run"]


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command's own parser."""
    made: argparse.ArgumentParser = commands.add_parser(
        "warm", help="have a running daemon read an export once, to fill its caches"
    )
    add_control_option(made)
    made.add_argument(
        "--offset", type=argument_kind(SIZE), default=0, metavar="SIZE", help="where to begin"
    )
    made.add_argument(
        "--length", type=argument_kind(SIZE), metavar="SIZE", help="how much (default: all)"
    )
    made.add_argument("--json", action="store_true", help="print one JSON document")
    made.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    made.add_argument("export", metavar="EXPORT")
    return made


def run(arguments: argparse.Namespace) -> int:
    """Carry it out; return the exit status: 1 if some of it could not be read."""
    meter: Meter | None = None

    def show(facts: Mapping[str, Any]) -> None:
        nonlocal meter
        if not arguments.quiet:
            meter = meter or Meter(facts["length"])
            meter.show(facts["done"])

    given = {
        "export": arguments.export, "offset": arguments.offset, "length": arguments.length,
    }  # fmt: skip
    try:
        done = ask(arguments, "warm", given, on_progress=show)
    finally:
        if meter is not None:
            meter.close()
    if arguments.json:
        answer_json(done)
    elif not done["failed"]:
        seconds = done["seconds"]
        answer(f"{arguments.export}: {short_size(done['bytes'])} warm after {seconds:.1f} s")
    if done["failed"]:
        complain(f"{short_size(done['failed'])} could not be read, first {done['error']}")
        return 1
    return 0
