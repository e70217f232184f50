"""What came of doing something to guests, several at once: a row a guest, whatever happens.

A guest for which it fails does not keep the others from it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from minicloud.commands.context import Context
from minicloud.commands.guests import failure_document, find_guest, guest_document, titled
from minicloud.errors import MinicloudError
from minicloud.model.guest import Guest
from minicloud.model.view import Lines, Outcome

__all__ = ["Deed", "Doing", "deeds_outcome", "do_to_guests"]


@dataclass(frozen=True, slots=True)
class Deed:
    """What was done.

    Attributes:
        did: one word for programs; `nothing` where nothing had to be done.
        text: for people, after the guest's name: `off after 3 s`.
        seconds: it took, or None.
    """

    did: str
    text: str
    seconds: float | None = None


Doing = Callable[[Guest], Awaitable[Deed]]


@dataclass(frozen=True, slots=True)
class _Row:
    asked: str
    guest: Guest | None
    deed: Deed | None = None
    error: MinicloudError | None = None


async def do_to_guests(context: Context, names: Sequence[str], doing: Doing) -> Outcome:
    """Find each guest and do it to each, all at once.

    Args:
        context: of the run.
        names: as asked for; a guest that is named twice counts once.
        doing: to one guest; its MinicloudError is that guest's row.
    """
    found = await asyncio.gather(*(_found(context, name) for name in dict.fromkeys(names)))
    unique = {row.guest.uuid if row.guest else row.asked: row for row in found}
    return deeds_outcome(await asyncio.gather(*(_done(row, doing) for row in unique.values())))


async def _found(context: Context, name: str) -> _Row:
    try:
        return _Row(name, await find_guest(context, name))
    except MinicloudError as exc:
        return _Row(name, None, error=exc)


async def _done(row: _Row, doing: Doing) -> _Row:
    if row.guest is None:
        return row
    try:
        return replace(row, deed=await doing(row.guest))
    except MinicloudError as exc:
        return replace(row, error=exc)


def deeds_outcome(rows: Sequence[_Row]) -> Outcome:
    """Make what is shown of them; status 0 all, 1 some, 2 none."""
    done = [(row.guest, row.deed) for row in rows if row.guest and row.deed]
    failed = [row for row in rows if row.error is not None]
    return Outcome(
        {
            "guests": [_document(guest, deed) for guest, deed in done],
            "errors": [
                failure_document(row.error, row.asked, row.guest.node if row.guest else None)
                for row in failed
                if row.error is not None
            ],
        },
        [Lines(tuple(f"{titled(guest)}: {deed.text}" for guest, deed in done))],
        [_line(row) for row in failed],
        status=0 if not failed else 1 if done else 2,
    )


def _line(row: _Row) -> str:
    """Say what failed; an error about finding a guest names it itself."""
    return str(row.error) if row.guest is None else f"{titled(row.guest)}: {row.error}"


def _document(guest: Guest, deed: Deed) -> dict[str, Any]:
    document = guest_document(guest) | {"did": deed.did, "message": deed.text}
    return document if deed.seconds is None else document | {"seconds": round(deed.seconds, 3)}
