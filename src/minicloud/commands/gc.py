"""`minicloud gc`: remove exports, overlays and seeds whose guest is gone.

A dry run comes first, always: what would go is listed, and is removed only where `--yes` or the
answer to a question says so; and then only what is still left over by a second look, since a guest
may have been made meanwhile. What was made in the last minutes is left alone: `boot` makes exports
first and the guest after. Where a node cannot be asked nothing is removed, for its guests may be
the owners; nodes that have an export server of their own answer for themselves.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from minicloud.booting.launch import withdraw
from minicloud.collecting import Remains, leftovers, owners, strangers
from minicloud.commands.context import Context
from minicloud.commands.failures import failure_documents
from minicloud.commands.values import typed
from minicloud.errors import StorageError
from minicloud.model.guest import NodeFacts
from minicloud.model.inventory import Node
from minicloud.model.outcome import Row
from minicloud.model.sizes import size_text
from minicloud.model.view import Lines, Outcome, Table, View
from minicloud.storage.service import Storage
from nbdserve.params import DURATION

__all__ = ["CHANGES", "HELP", "add_arguments", "run"]

HELP: Final = "remove disks, seeds and records whose guest is gone"
CHANGES: Final = True

_MIN_AGE: Final = 600.0  # seconds; the longest way of a boot from its first export to its guest


@dataclass(frozen=True, slots=True)
class _Found:
    """What is left over on one server.

    Attributes:
        place: the node whose server it is, or "" where one serves all.
        storage: the server.
        remains: on it.
    """

    place: str
    storage: Storage
    remains: Sequence[Remains]


@dataclass(frozen=True, slots=True)
class _Looked:
    """A look at everything.

    Attributes:
        found: by server.
        silent: rows of the nodes that could not be asked.
        strangers: guests that no node has and that were put on one the inventory lacks: that one.
        min_age: seconds; what is younger may belong to a boot that is under way.
    """

    found: Sequence[_Found]
    silent: Sequence[Row[NodeFacts]]
    strangers: Mapping[str, str] = field(default_factory=dict)
    min_age: float = 0.0

    def pairs(self) -> list[tuple[_Found, Remains]]:
        """List all that is left over, with its server."""
        return [(found, one) for found, one in self._all() if not self._is_young(one)]

    def young(self) -> list[tuple[_Found, Remains]]:
        """List what looks left over, and may become a guest yet."""
        return [(found, one) for found, one in self._all() if self._is_young(one)]

    def _all(self) -> Iterator[tuple[_Found, Remains]]:
        return ((found, one) for found in self.found for one in found.remains)

    def _is_young(self, one: Remains) -> bool:
        return one.age is not None and one.age < self.min_age


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `gc` alone takes."""
    parser.add_argument("--yes", action="store_true", help="remove it, do not ask")
    parser.add_argument(
        "--min-age",
        type=typed(DURATION.parse),
        default=_MIN_AGE,
        metavar="TIME",
        help="leave alone what was made since, for a boot may be under way (10m)",
    )


async def run(context: Context, arguments: argparse.Namespace) -> Outcome:
    """Look, ask, look again, remove."""
    looked = await _look(context, arguments.min_age)
    pairs = looked.pairs()
    if pairs and looked.silent and not context.storage.is_per_node:
        return _outcome(looked, pairs, {}, refused=True)
    if not pairs or context.dry_run:
        return _outcome(looked, pairs, {})
    if not arguments.yes and not await context.ask(_question(pairs)):
        return _outcome(looked, pairs, {})
    return await _removed(context, pairs, arguments.min_age)


async def _look(context: Context, min_age: float) -> _Looked:
    """Ask the servers, then all nodes: a guest made in between has its exports unseen."""
    cluster, storage = context.cluster, context.storage
    context.report.step("asking the export server")
    if storage.is_per_node:
        return await _look_at_each(context, min_age)
    exports, overlays = await storage.exports(), await storage.overlays()
    context.report.step("asking the nodes")
    nodes = cluster.nodes()
    for node in nodes:
        await cluster.forget(node.name)
    rows = await cluster.gather(lambda node: cluster.facts(node.name), nodes)
    guests = [guest for row in rows if row.value is not None for guest in row.value.guests]
    elsewhere = strangers(exports, context.inventory.nodes)
    found = leftovers(exports, overlays, owners(guests))
    kept = {one.guest: elsewhere[one.guest] for one in found if one.guest in elsewhere}
    remains = [one for one in found if one.guest not in kept]
    silent = [row for row in rows if row.value is None]
    return _Looked([_Found("", storage, remains)], silent, kept, min_age)


async def _look_at_each(context: Context, min_age: float) -> _Looked:
    cluster = context.cluster

    async def look(node: Node) -> _Found:
        storage = context.storage.at(node)
        exports, overlays = await storage.exports(), await storage.overlays()
        await cluster.forget(node.name)
        facts = await cluster.facts(node.name)
        return _Found(node.name, storage, leftovers(exports, overlays, owners(facts.guests)))

    rows = await cluster.gather(look, cluster.nodes(context.only))
    silent = [Row[NodeFacts](row.node, None, row.error) for row in rows if row.error is not None]
    found = [row.value for row in rows if row.value is not None]
    return _Looked(found, silent, min_age=min_age)


async def _removed(
    context: Context, agreed: list[tuple[_Found, Remains]], min_age: float
) -> Outcome:
    """Remove what was agreed to and is still left over."""
    names = {(found.place, one.guest) for found, one in agreed}
    looked = await _look(context, min_age)
    pairs = [pair for pair in looked.pairs() if (pair[0].place, pair[1].guest) in names]
    if looked.silent and not context.storage.is_per_node:
        return _outcome(looked, pairs, {}, refused=True)
    failures: dict[str, StorageError | None] = {}
    for number, (found, one) in enumerate(pairs):
        context.report.step(f"removing what {one.guest} left")
        context.report.progress(number, len(pairs), "guests")
        failures[f"{found.place}:{one.guest}"] = await _remove(found.storage, one)
    return _outcome(looked, pairs, failures)


async def _remove(storage: Storage, remains: Remains) -> StorageError | None:
    """Remove what one guest left, but nothing that somebody has come to use."""
    disk = f"guest/{remains.guest}"
    try:
        for name in (one for one in remains.exports if one != disk):
            await withdraw(storage, name, force=False)
        if disk in remains.exports:
            await withdraw(storage, disk, overlay=remains.overlay, force=False)
        elif remains.overlay is not None:
            await storage.delete_overlay(remains.overlay)
    except StorageError as exc:
        return exc
    return None


def _question(pairs: Sequence[tuple[_Found, Remains]]) -> str:
    things = ", ".join(f"{one.guest} ({size_text(one.size)})" for _, one in pairs[:8])
    more = f" and {len(pairs) - 8} more" if len(pairs) > 8 else ""
    size = size_text(sum(one.size for _, one in pairs))
    return f"Remove what is left of {things}{more}, {size} in all?"


def _outcome(
    looked: _Looked,
    pairs: Sequence[tuple[_Found, Remains]],
    done: dict[str, StorageError | None],
    *,
    refused: bool = False,
) -> Outcome:
    """Tell what was found and what was done about it.

    Args:
        looked: at the servers and nodes.
        pairs: what is, or was, left over.
        done: what came of removing each, by server and guest; empty where nothing was removed.
        refused: because a node that did not answer may own it.
    """
    failed = {key: exc for key, exc in done.items() if exc is not None}
    young = looked.young()
    views: list[View] = [_table(pairs, young, done)] if pairs or young else []
    kept = [
        f"what {guest} has was left alone: it was put on {node}, which is not in the inventory"
        for guest, node in sorted(looked.strangers.items())
    ]
    if young:
        kept.append(
            f"{len(young)} made in the last {DURATION.show(looked.min_age)} were left alone, for a "
            "boot may be under way; --min-age 0 takes them too"
        )
    views.append(Lines((_summary(pairs, done, failed, refused=refused), *kept)))
    errors = [
        f"{row.node}: {row.error}; its guests may own what is left over, so nothing is removed"
        if refused
        else f"{row.node}: {row.error}"
        for row in looked.silent
    ]
    errors += [f"{key.lstrip(':')}: {exc}" for key, exc in failed.items()]
    document = {
        "leftovers": [
            _document(found, one, _state(done, _key(found, one))) for found, one in pairs
        ],
        "young": [_document(found, one, "young") for found, one in young],
        "bytes": sum(one.size for _, one in pairs),
        "errors": [
            *failure_documents(looked.silent),
            *(
                {"node": None, "reason": f"storage-{exc.kind}", "message": str(exc), "remedy": ""}
                for exc in failed.values()
            ),
        ],
    }
    if refused or (failed and len(failed) == len(done)):
        status = 2
    else:
        status = 1 if failed or looked.silent else 0
    return Outcome(document, views, errors, status)


def _summary(
    pairs: Sequence[tuple[_Found, Remains]],
    done: dict[str, StorageError | None],
    failed: dict[str, StorageError],
    *,
    refused: bool,
) -> str:
    if not pairs:
        return "nothing is left over"
    size = size_text(sum(one.size for _, one in pairs))
    if done:
        return f"removed what {len(done) - len(failed)} of {len(done)} guests left, {size} in all"
    hint = "" if refused else "; remove it with --yes"
    return f"{len(pairs)} guests left {size} behind{hint}"


def _key(found: _Found, one: Remains) -> str:
    return f"{found.place}:{one.guest}"


def _table(
    pairs: Sequence[tuple[_Found, Remains]],
    young: Sequence[tuple[_Found, Remains]],
    done: dict[str, StorageError | None],
) -> Table:
    told = [(found, one, _state(done, _key(found, one))) for found, one in pairs]
    told += [(found, one, "young") for found, one in young]
    rows = [
        (
            one.guest,
            found.place or "-",
            " ".join(one.exports) or "-",
            one.overlay or "-",
            size_text(one.size),
            state,
        )
        for found, one, state in told
    ]
    columns = ("guest", "node", "exports", "overlay", "size", "state")
    return Table(columns, rows, right=frozenset({"size"}))


def _state(done: dict[str, StorageError | None], key: str) -> str:
    if key not in done:
        return "left over"
    return "removed" if done[key] is None else "failed"


def _document(found: _Found, one: Remains, state: str) -> dict[str, Any]:
    return {
        "guest": one.guest,
        "node": found.place or None,
        "exports": list(one.exports),
        "overlay": one.overlay,
        "bytes": one.size,
        "age": one.age,
        "state": state,
    }
