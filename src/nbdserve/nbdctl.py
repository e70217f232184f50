"""The `nbdctl` command: what an image is, whether a configuration is right.

As systemctl is systemd's: the daemon is `nbdserve`, this is its tool. Every answer is text for a
person or, with --json, one JSON document.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from nbdserve import __version__
from nbdserve.build import open_chain, resolve
from nbdserve.cli import run_command
from nbdserve.config import Configuration, configuration_errors
from nbdserve.errors import ConfigError
from nbdserve.inspection import Inspection, gather, render
from nbdserve.logs import configure
from nbdserve.params import params_of
from nbdserve.settings import TcpListener
from nbdserve.spec import ExportSpec, parse_layer, parse_source

__all__ = ["main", "parser"]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see nbdctl --help")


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command line; the reference pages read it too."""
    made = _Parser(prog="nbdctl", description="Inspect images and check configurations.")
    made.add_argument("-V", "--version", action="version", version=f"nbdctl {__version__}")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    inspect = commands.add_parser("inspect", help="tell what an image is and what reading it costs")
    inspect.add_argument(
        "--layer", action="append", default=[], metavar="NAME[:key=value,…]",
        help="wrap what follows in a layer, as nbdserve does",
    )  # fmt: skip
    inspect.add_argument("--json", action="store_true", help="print one JSON document")
    inspect.add_argument("-v", "--verbose", action="store_true", help="log DEBUG messages")
    inspect.add_argument("words", nargs="+", metavar="SOURCE [ARG] [key=value …]")
    check = commands.add_parser("check", help="read a configuration and tell all its errors")
    check.add_argument("--json", action="store_true", help="print one JSON document")
    check.add_argument("file", type=Path, metavar="FILE")
    return made


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its status."""
    sys.exit(run_command("nbdctl", lambda: _run(sys.argv[1:] if argv is None else argv)))


def _run(argv: Sequence[str]) -> int:
    arguments, rest = parser().parse_known_args(argv)
    if rest:
        raise ConfigError(f"unknown option {rest[0]}; see nbdctl {arguments.command} --help")
    if arguments.command == "check":
        return _check(arguments.file, as_json=arguments.json)
    configure(verbose=arguments.verbose, form="text", quiet=True)
    spec = ExportSpec(
        source=parse_source(arguments.words),
        layers=tuple(map(parse_layer, arguments.layer)),
        read_only=True,
    )
    found = asyncio.run(_inspect(spec))
    _print(json.dumps(found.as_json(), indent=2) if arguments.json else render(found))
    return 0


async def _inspect(spec: ExportSpec) -> Inspection:
    chain = await open_chain(spec)
    try:
        return await gather(spec, chain)
    finally:
        await chain.close()


def _check(path: Path, *, as_json: bool) -> int:
    configuration, errors = configuration_errors(path)
    if configuration is None:
        for error in errors:
            print(f"nbdctl: {error}", file=sys.stderr)  # noqa: T201 -- the command's voice
        if as_json:
            told = [{"table": e.table, "key": e.key, "message": e.message} for e in errors]
            _print(json.dumps({"errors": told}, indent=2))
        return 2
    resolved = _resolved(configuration)
    _print(json.dumps(resolved, indent=2) if as_json else _text(resolved))
    return 0


def _resolved(configuration: Configuration) -> dict[str, object]:
    """Spell a configuration out, defaults included."""
    settings = configuration.settings
    listeners = [
        f"{one.host}:{one.port}" if isinstance(one, TcpListener) else str(one.path)
        for one in settings.listeners or (TcpListener(),)
    ]
    return {
        "listeners": listeners,
        "handshake-timeout": settings.handshake_timeout,
        "max-connections": settings.max_connections,
        "drain-timeout": settings.drain_timeout,
        "exports": [_resolved_export(export) for export in configuration.exports],
    }


def _resolved_export(export: ExportSpec) -> dict[str, object]:
    chain = []
    for label, _, cls, params in reversed(resolve(export)):
        element: dict[str, object] = {"element": label}
        for param in params_of(cls.Params):
            element[param.key] = _shown(param.kind.show, getattr(params, param.field))
        chain.append(element)
    return {
        "name": export.name,
        "description": export.description,
        "read-only": export.read_only,
        "chain": chain,
    }


def _shown(show: object, value: object) -> object:
    if value is None:
        return None
    if isinstance(value, tuple):
        return [_shown(show, one) for one in value]
    return show(value) if callable(show) else value


def _text(resolved: dict[str, object]) -> str:
    lines = []
    for key, value in resolved.items():
        if key != "exports":
            lines.append(f"{key}: {', '.join(value) if isinstance(value, list) else value}")
    exports = resolved["exports"]
    for export in exports if isinstance(exports, list) else []:
        lines.append(f"export {export['name']!r}" + (" (read-only)" if export["read-only"] else ""))
        if export["description"]:
            lines.append(f"  {export['description']}")
        for element in export["chain"]:
            given = [f"{k}={v}" for k, v in element.items() if k != "element" and v is not None]
            lines.append("  " + " ".join([element["element"], *given]))
    return "\n".join(lines)


def _print(text: str) -> None:
    print(text.rstrip("\n"))  # noqa: T201 -- the command's answer


if __name__ == "__main__":
    main()
