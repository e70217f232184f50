"""`nbdctl overlay list|delete`: what guests have written, in the daemon's overlay folder."""

import argparse
import time
from typing import Any

from nbdserve.inspection import short_size
from nbdserve.nbdctl.daemon import add_control_option, ask
from nbdserve.nbdctl.voice import answer, answer_json

__all__ = ["add_parser", "run"]


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command's own parsers, one for each of its parts."""
    made: argparse.ArgumentParser = commands.add_parser(
        "overlay", help="list and delete the overlays in the daemon's overlay folder"
    )
    parts = made.add_subparsers(dest="part", required=True, metavar="list|delete")
    listing = parts.add_parser("list", help="list the overlays, used or not")
    add_control_option(listing)
    listing.add_argument("--json", action="store_true", help="print one JSON document")
    listing.set_defaults(part_run=_list)
    deleting = parts.add_parser("delete", help="delete overlays that no export uses")
    add_control_option(deleting)
    deleting.add_argument("names", nargs="+", metavar="NAME")
    deleting.set_defaults(part_run=_delete)
    return made


def run(arguments: argparse.Namespace) -> int:
    """Carry it out; return the exit status."""
    status: int = arguments.part_run(arguments)
    return status


def _list(arguments: argparse.Namespace) -> int:
    found = ask(arguments, "overlay.list", {})
    if arguments.json:
        answer_json(found)
        return 0
    for one in found["overlays"]:
        written = time.strftime("%Y-%m-%d %H:%M", time.localtime(one["mtime"]))
        user = "unused" if one["export"] is None else f"export {one['export']!r}"
        sizes = f"{short_size(one['allocated'])} of {short_size(one['size'])}"
        answer(f"{one['name']}: {sizes}, written {written}, {user}")
    return 0


def _delete(arguments: argparse.Namespace) -> int:
    for name in arguments.names:
        done = ask(arguments, "overlay.delete", {"path": name})
        answer(f"{done['path']} is deleted")
    return 0
