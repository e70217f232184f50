"""`nbdctl status`: what a running daemon does."""

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from nbdserve.inspection import short_size
from nbdserve.nbdctl.daemon import add_control_option, ask
from nbdserve.nbdctl.voice import answer, answer_json

__all__ = ["add_parser", "export_lines", "run", "status_text"]


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command's own parser."""
    made: argparse.ArgumentParser = commands.add_parser(
        "status", help="tell what a running daemon does"
    )
    add_control_option(made)
    made.add_argument("--json", action="store_true", help="print one JSON document")
    return made


def run(arguments: argparse.Namespace) -> int:
    """Carry it out; return the exit status."""
    found = ask(arguments, "status", {})
    if arguments.json:
        answer_json(found)
    else:
        answer(status_text(found))
    return 0


def status_text(found: Mapping[str, Any]) -> str:
    """Tell a person what the daemon told."""
    life = f"{found['state']} for {_duration(found['uptime'])}"
    lines = [
        f"nbdserve {found['version']}, process {found['pid']}, {life}",
        *(f"listening on {uri}" for uri in found["listeners"]),
    ]
    for client in found["clients"]:
        chosen = "no export yet" if client["export"] is None else f"export {client['export']!r}"
        lines.append(
            f"client {client['peer']}: {chosen}, {client['requests']} requests, "
            f"{_duration(client['seconds'])}"
        )
    for export in found["exports"]:
        lines += export_lines(export)
    return "\n".join(lines)


def export_lines(export: Mapping[str, Any]) -> Iterator[str]:
    """Tell a person about one export."""
    yield f"export {export['name']!r}: {_summary(export)}"
    if export["description"]:
        yield f"  {export['description']}"
    if export.get("lease"):  # an older daemon knows nothing of it
        yield f"  {_lease(export['lease'])}"
    for device in export["devices"]:
        facts = [f"{key}={_fact(value)}" for key, value in device["status"].items()]
        yield "  " + " ".join([device["element"], *facts])


def _summary(export: Mapping[str, Any]) -> str:
    if not export["open"]:
        return f"not open: {export['error'] or 'nobody has asked for it'}"
    count = export["connections"]
    writing = "read-only" if "read_only" in export["flags"] else "writable"
    return f"{short_size(export['size'])}, {writing}, {count} connection{'s' * (count != 1)}"


def _lease(lease: Mapping[str, Any]) -> str:
    text = f"exclusive, held by {lease['holder'] or 'nobody'}"
    handover = lease["handover"]
    if handover is None:
        return text
    if handover["passed"]:
        return f"{text}, handed over by {handover['other']}"
    left = f"for {_duration(handover['seconds'])}"
    return f"{text}, handover {left} to {handover['other'] or 'the next client'}"


def _fact(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    days, rest = divmod(whole, 86400)
    clock = f"{rest // 3600}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{days} d {clock}" if days else clock
