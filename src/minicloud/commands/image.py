"""`minicloud image list|check`: what guests can be made of, and whether it is what it should be."""

import argparse
from collections.abc import Sequence
from typing import Any, Final

from minicloud.commands.context import Context
from minicloud.domain.metadata import public_image
from minicloud.errors import MinicloudError, NodeError, StorageError, UsageError
from minicloud.images.catalogue import Entry, entries
from minicloud.images.checking import Checked, check_images
from minicloud.images.facts import checksums_of
from minicloud.model.inventory import Template
from minicloud.model.sizes import size_text
from minicloud.model.view import Outcome, Table
from nbdserve.inspection import short_size

__all__ = ["CHANGES", "HELP", "NEEDS_NODES", "add_arguments", "run"]

HELP: Final = "the catalogue of templates, and a check of their images"
CHANGES: Final = False
NEEDS_NODES: Final = False

_NONE: Final = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("action", choices=("list", "check"), help="what to do")
    parser.add_argument(
        "template", nargs="*", metavar="TEMPLATE", help="only these (default all of them)"
    )
    parser.add_argument(
        "--long", action="store_true", help="list: ask the servers for sizes and formats too"
    )
    parser.add_argument(
        "--quick", action="store_true",
        help="check: do not read the whole of an image to verify its checksum",
    )  # fmt: skip


async def run(context: Context, arguments: argparse.Namespace) -> Outcome:
    """Carry it out."""
    if arguments.action == "check" and arguments.long:
        raise UsageError("--long is of `image list`; `image check` tells all it finds")
    if arguments.action == "list" and arguments.quick:
        raise UsageError("--quick is of `image check`; `image list` never reads an image")
    found = await entries(context.inventory, arguments.template)
    templates = [entry.template for entry in found if entry.template is not None]
    checked: Sequence[Checked] = ()
    if arguments.action == "check" or arguments.long:
        whole = arguments.action == "check" and not arguments.quick
        checked = await check_images(
            context.inventory, templates, context.report, whole=whole,
            reach=context.cluster.session_to, deadline=context.timeout,
        )  # fmt: skip
    if arguments.action == "list":
        return _listed(found, checked)
    return _checked(found, checked, quick=arguments.quick)


def _listed(found: Sequence[Entry], checked: Sequence[Checked]) -> Outcome:
    first = {row.template.name: row for row in reversed(checked)}
    columns: tuple[str, ...] = (
        "template",
        "image",
        "layers",
        "size",
        "memory",
        "vcpus",
        "checksum",
    )
    if checked:
        columns += ("file", "format", "disk")
    rows = [_row(entry, first.get(entry.name)) for entry in found]
    right = frozenset({"size", "memory", "vcpus", "file", "disk"})
    errors = [_error(entry.name, None, entry.error) for entry in found if entry.error is not None]
    errors += [_error(row.template.name, row.place, e) for row in checked for e in row.errors]
    document = {
        "templates": [_document(entry, checked) for entry in found],
        "errors": errors,
    }
    table = Table(columns, [row[: len(columns)] for row in rows], right)
    bad = {str(error["template"]) for error in errors}
    return Outcome(document, (table,), _lines(errors), _status(len(found), len(bad)))


def _row(entry: Entry, checked: Checked | None) -> tuple[str, ...]:
    template = entry.template
    if template is None:
        return (entry.name, *(_NONE,) * 9)
    mirrors = len(template.image) - 1
    more = f" (+{mirrors} mirror{'s' * (mirrors > 1)})" if mirrors else ""
    return (
        template.name,
        f"{public_image(template.image[0])}{more}",
        " ".join(template.layers) or _NONE,
        _NONE if template.size is None else size_text(template.size),
        size_text(template.memory),
        str(template.vcpus),
        " ".join(checksums_of(template)) or "none",
        *_found(checked, template),
    )


def _found(checked: Checked | None, template: Template) -> tuple[str, str, str]:
    if checked is None or checked.facts is None:
        return _NONE, _NONE, _NONE
    disk = checked.facts.disk(template)
    shown = _NONE if disk is None else size_text(disk)
    return size_text(checked.facts.size), checked.facts.format, shown


def _document(entry: Entry, checked: Sequence[Checked]) -> dict[str, Any]:
    script = None if entry.script is None else str(entry.script)
    if entry.template is None:
        return {"name": entry.name, "script": script}
    template = entry.template
    found: dict[str, Any] = {
        "name": template.name,
        "script": script,
        "image": [public_image(one) for one in template.image],
        "layers": list(template.layers),
        "size": template.size,
        "memory": template.memory,
        "vcpus": template.vcpus,
        "checksums": checksums_of(template),
    }
    facts = [row for row in checked if row.template.name == template.name]
    if facts:
        found["images"] = [_image(row) for row in facts]
    return found


def _image(row: Checked) -> dict[str, Any]:
    facts = None if row.facts is None else row.facts.as_json(row.template)
    return {
        "image": public_image(row.image),
        "machine": row.machine or None,
        "found": facts,
        "warnings": list(row.warnings),
    }


def _checked(found: Sequence[Entry], checked: Sequence[Checked], *, quick: bool) -> Outcome:
    failed = [entry for entry in found if entry.error is not None]
    columns = ("template", "image", "file", "format", "disk", "blocks", "checksum", "result")
    rows: list[tuple[str, ...]] = [
        (
            row.template.name,
            row.place,
            *_found(row, row.template),
            _blocks(row),
            _checksum(row, quick=quick),
            _result(row),
        )
        for row in checked
    ]
    rows += [(entry.name, *(_NONE,) * 6, "wrong") for entry in failed]
    errors = [_error(entry.name, None, entry.error) for entry in failed]
    errors += [_error(row.template.name, row.place, e) for row in checked for e in row.errors]
    warnings = [
        f"{row.template.name}: {row.place}: {text}" for row in checked for text in row.warnings
    ]
    document = {
        "images": [
            {"template": row.template.name, "result": _result(row), **_image(row)}
            for row in checked
        ],
        "errors": errors,
    }
    table = Table(columns, rows, frozenset({"file", "disk"}))
    bad = sum(row[-1] == "wrong" for row in rows)
    return Outcome(document, (table,), [*_lines(errors), *warnings], _status(len(rows), bad))


def _blocks(row: Checked) -> str:
    if row.facts is None or row.facts.xz is None:
        return _NONE
    layout = row.facts.xz.layout
    return f"{layout.blocks}, up to {short_size(layout.largest_block)}"


def _checksum(row: Checked, *, quick: bool) -> str:
    given = checksums_of(row.template)
    if not given:
        return "none"
    if row.facts is None or quick:
        return f"{' '.join(given)} not read"
    good = all(row.facts.sums[name] == value for name, value in given.items())
    return f"{' '.join(given)} {'ok' if good else 'DIFFERS'}"


def _result(row: Checked) -> str:
    if row.errors:
        return "wrong"
    return "slow" if row.warnings else "ok"


def _error(template: str, image: str | None, error: MinicloudError | None) -> dict[str, Any]:
    reason = "usage"
    if isinstance(error, StorageError):
        reason = error.kind
    elif isinstance(error, NodeError):
        reason = str(error.reason)
    return {"template": template, "image": image, "reason": reason, "message": str(error)}


def _lines(errors: Sequence[dict[str, Any]]) -> list[str]:
    return [
        ": ".join(str(part) for part in (e["template"], e["image"], e["message"]) if part)
        for e in errors
    ]


def _status(rows: int, bad: int) -> int:
    """Sum up: 0 all are good, 1 some, 2 none; an empty catalogue has nothing that is bad."""
    if bad == 0:
        return 0
    return 1 if bad < rows else 2
