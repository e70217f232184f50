"""`nbdctl export …`: exports that come and go while the daemon serves, and who has them."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nbdserve.build import resolve
from nbdserve.cli import argument_kind
from nbdserve.device import Device
from nbdserve.nbdctl.daemon import add_control_option, ask
from nbdserve.nbdctl.image import add_layer_option
from nbdserve.nbdctl.status import export_lines
from nbdserve.nbdctl.voice import answer, answer_json
from nbdserve.params import PATH, TIMEOUT, Value, params_of
from nbdserve.spec import ElementSpec, ExportSpec, parse_layer, parse_source

__all__ = ["add_parser", "export_table", "run"]


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command's own parsers, one for each of its parts."""
    made: argparse.ArgumentParser = commands.add_parser(
        "export", help="add, remove, list and hand over the exports of a running daemon"
    )
    parts = made.add_subparsers(
        dest="part", required=True, metavar="add|remove|list|handover|disconnect"
    )
    _add_adding(parts.add_parser("add", help="serve a further export"))
    _add_removing(parts.add_parser("remove", help="serve an added export no more"))
    listing = parts.add_parser("list", help="list the exports")
    add_control_option(listing)
    listing.add_argument("--json", action="store_true", help="print one JSON document")
    listing.set_defaults(part_run=_list)
    _add_handing_over(parts.add_parser("handover", help="let a migration have an exclusive export"))
    dropping = parts.add_parser("disconnect", help="drop all clients of an export")
    add_control_option(dropping)
    dropping.add_argument("name", metavar="NAME")
    dropping.set_defaults(part_run=_disconnect)
    return made


def run(arguments: argparse.Namespace) -> int:
    """Carry it out; return the exit status."""
    status: int = arguments.part_run(arguments)
    return status


def export_table(spec: ExportSpec) -> dict[str, Any]:
    """Write an export as an [[export]] table is written, relative paths made whole.

    The daemon has another working folder than we have.

    Raises:
        ConfigError: it is wrong as written.
    """
    source, *layers = (_element_table(element, cls) for _, element, cls, _ in resolve(spec))
    return {
        "name": spec.name,
        "description": spec.description,
        "read-only": spec.read_only,
        **({"exclusive": True} if spec.exclusive else {}),  # an older daemon knows nothing of it
        "layers": layers[::-1],
        "source": source,
    }


def _element_table(element: ElementSpec, cls: type[Device]) -> dict[str, Any]:
    table: dict[str, Any] = {"type": element.name}
    params = {param.key: param for param in params_of(cls.Params)}
    argument = next((param.key for param in params.values() if param.argument), "")
    for written, value in element.given:
        key = written.replace("_", "-") or argument
        whole = _whole(value) if params[key].kind is PATH else value
        if params[key].many:
            table.setdefault(key, []).append(whole)
        else:
            table[key] = whole
    return table


def _whole(value: Value) -> str:
    return str(Path.cwd() / Path(str(value)).expanduser())


def _add_adding(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "nbdctl export add [options] NAME [--layer NAME[:key=value,…]]… SOURCE [ARG] [key=value …]"
    )
    add_control_option(parser)
    add_layer_option(parser)
    parser.add_argument("--description", default="", metavar="TEXT", help="told to clients")
    parser.add_argument("-r", "--read-only", action="store_true", help="refuse writes")
    parser.add_argument(
        "-x", "--exclusive", action="store_true", help="let in one client at a time"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("words", nargs="+", metavar="SOURCE")
    parser.set_defaults(part_run=_add)


def _add_removing(parser: argparse.ArgumentParser) -> None:
    add_control_option(parser)
    parser.add_argument("--force", action="store_true", help="drop the clients that use it")
    parser.add_argument(
        "--discard", action="store_true", help="delete the overlays that its cow layers keep, too"
    )
    parser.add_argument("name", metavar="NAME")
    parser.set_defaults(part_run=_remove)


def _add_handing_over(parser: argparse.ArgumentParser) -> None:
    add_control_option(parser)
    parser.add_argument(
        "--for", dest="seconds", type=argument_kind(TIMEOUT), default=60.0, metavar="D",
        help="how long a second client may be connected (default 60s)",
    )  # fmt: skip
    parser.add_argument(
        "--end", action="store_true", help="end it, and drop the client that may not write"
    )
    parser.add_argument("name", metavar="NAME")
    parser.set_defaults(part_run=_hand_over)


def _add(arguments: argparse.Namespace) -> int:
    layers: Sequence[str] = arguments.layer
    spec = ExportSpec(
        parse_source(arguments.words), tuple(map(parse_layer, layers)), arguments.name,
        arguments.description, arguments.read_only, arguments.exclusive,
    )  # fmt: skip
    done = ask(arguments, "export.add", {"export": export_table(spec)})
    if arguments.json:
        answer_json(done)
    else:
        note = "" if done["kept"] else ", until the daemon ends: it has no --state-dir"
        answer(f"export {done['name']!r} is served{note}")
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    given = {"export": arguments.name, "force": arguments.force}
    if arguments.discard:
        given["discard"] = True
    done = ask(arguments, "export.remove", given)
    answer(f"export {done['name']!r} is served no more")
    for path in done.get("discarded", ()):
        answer(f"{path} is deleted")
    return 0


def _hand_over(arguments: argparse.Namespace) -> int:
    if arguments.end:
        done = ask(arguments, "export.handover-end", {"export": arguments.name})
        dropped = f"{done['dropped']} is dropped" if done["dropped"] else "nobody is dropped"
        answer(f"the handover of export {done['name']!r} has ended; {dropped}")
        return 0
    given = {"export": arguments.name, "seconds": arguments.seconds}
    done = ask(arguments, "export.handover", given)
    answer(f"export {done['name']!r} lets a second client in for {done['seconds']:g} s")
    return 0


def _disconnect(arguments: argparse.Namespace) -> int:
    done = ask(arguments, "export.disconnect", {"export": arguments.name})
    count = done["count"]
    answer(f"{count} client{'s' * (count != 1)} of export {done['name']!r} dropped")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    found = ask(arguments, "export.list", {})
    if arguments.json:
        answer_json(found)
    else:
        answer("\n".join(line for export in found["exports"] for line in export_lines(export)))
    return 0
