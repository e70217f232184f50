"""`nbdctl check FILE`: a configuration spelled out, or all its errors."""

import argparse
from pathlib import Path
from typing import Any

from nbdserve.build import resolve
from nbdserve.config import Configuration, configuration_errors
from nbdserve.errors import ConfigError
from nbdserve.nbdctl.voice import answer, answer_json, complain
from nbdserve.params import params_of
from nbdserve.server.tls import Tls
from nbdserve.settings import TcpListener
from nbdserve.spec import ExportSpec

__all__ = ["add_parser", "run"]


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command's own parser."""
    made: argparse.ArgumentParser = commands.add_parser(
        "check", help="read a configuration and tell all its errors"
    )
    made.add_argument("--json", action="store_true", help="print one JSON document")
    made.add_argument("file", type=Path, metavar="FILE")
    return made


def run(arguments: argparse.Namespace) -> int:
    """Carry it out; return the exit status."""
    configuration, errors = configuration_errors(arguments.file)
    if configuration is not None:
        try:
            Tls.open(configuration.settings.tls)  # else the start would be the first to tell
        except ConfigError as exc:
            configuration, errors = None, [exc]
    if configuration is None:
        for error in errors:
            complain(str(error))
        if arguments.json:
            told = [{"table": e.table, "key": e.key, "message": e.message} for e in errors]
            answer_json({"errors": told})
        return 2
    resolved = _resolved(configuration)
    if arguments.json:
        answer_json(resolved)
    else:
        answer(_text(resolved))
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
        "control": _shown(str, settings.control),
        "control-mode": f"{settings.control_mode:04o}",
        "control-owner": settings.control_owner,
        "state-dir": _shown(str, settings.state_dir),
        "overlay-dir": _shown(str, settings.overlay_dir),
        "handshake-timeout": settings.handshake_timeout,
        "max-connections": settings.max_connections,
        "drain-timeout": settings.drain_timeout,
        "max-in-flight": settings.max_in_flight,
        "max-in-flight-bytes": settings.max_in_flight_bytes,
        "pid-file": _shown(str, settings.pid_file),
        "tls": _shown(str, settings.tls.mode),
        "tls-certificates": _shown(str, settings.tls.certificates),
        "tls-verify-peer": settings.tls.verify_peer,
        "tls-psk": _shown(str, settings.tls.psk),
        "log-format": _shown(str, configuration.log_format),
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
        "exclusive": export.exclusive,
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
        if key != "exports" and value is not None:
            lines.append(f"{key}: {', '.join(value) if isinstance(value, list) else value}")
    exports = resolved["exports"]
    for export in exports if isinstance(exports, list) else []:
        marks = [mark for mark in ("read-only", "exclusive") if export[mark]]
        lines.append(f"export {export['name']!r}" + (f" ({', '.join(marks)})" if marks else ""))
        if export["description"]:
            lines.append(f"  {export['description']}")
        for element in export["chain"]:
            given = [f"{k}={v}" for k, v in element.items() if k != "element" and v is not None]
            lines.append("  " + " ".join([element["element"], *given]))
    return "\n".join(lines)
