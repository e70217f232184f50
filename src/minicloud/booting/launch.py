"""The steps that make a guest: its exports, its domain, its start; each with its way back.

What is undone is known by its answer: an export the server refused to add was somebody else's and
is left alone, one whose answer never came may be there and is removed if nobody uses it.
"""

import functools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from minicloud.booting.undo import Undo, unbroken
from minicloud.domain.plan import GuestPlan
from minicloud.domain.xml import domain_xml
from minicloud.errors import StorageError
from minicloud.hypervisor.domains import Made, create_paused, remove, resume
from minicloud.hypervisor.driver import Hypervisor
from minicloud.model.guest import GuestKind
from minicloud.storage.service import Storage

__all__ = ["CREATING", "REMOVING", "Making", "make", "start", "withdraw"]

CREATING: Final = 60.0
"""Seconds to make a domain: qemu opens every disk before libvirtd answers."""

REMOVING: Final = 30.0
"""Seconds to remove one: libvirt gives qemu 10 to end by SIGTERM and 5 by SIGKILL."""

_NO_ANSWER: Final = "unreachable"
_NO_EXPORT: Final = "unknown-export"
_NO_OVERLAY: Final = "argument"


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """All of a guest that is to be made.

    Attributes:
        plan: its domain.
        disk: table of the export of its disk.
        overlay: path of the file that export keeps the guest's writes in.
        others: tables of its further exports: seed, record.
        before_start: done when the exports are served and the domain is not there yet.
    """

    plan: GuestPlan
    disk: Mapping[str, Any]
    overlay: str
    others: tuple[Mapping[str, Any], ...] = ()
    before_start: Callable[[], Awaitable[None]] | None = None


async def make(making: Making, storage: Storage, hypervisor: Hypervisor, undo: Undo) -> Made:
    """Do all steps up to the paused domain, and tell `undo` how each is taken back.

    Args:
        making: what.
        storage: of the guest's node.
        hypervisor: of its node.
        undo: takes them back if the caller's block raises.

    Raises:
        StorageError: an export cannot be served.
        NodeError: the domain cannot be made.
    """
    await _serve(storage, making.disk, undo, overlay=making.overlay)
    for table in making.others:
        await _serve(storage, table, undo)
    if making.before_start is not None:
        await making.before_start()
    plan = making.plan
    undo.by(
        f"guest {plan.name}",
        lambda: hypervisor.call(
            functools.partial(remove, uuid=plan.uuid), deadline=REMOVING
        ),
    )  # fmt: skip
    create = functools.partial(
        create_paused, xml=domain_xml(plan), is_kept=plan.kind is GuestKind.PET
    )
    # a call that was cut may still be carried out, after whatever came to undo it
    return await unbroken(hypervisor.call(create, deadline=CREATING))


async def start(hypervisor: Hypervisor, uuid: str) -> None:
    """Let the paused domain go."""
    await hypervisor.call(functools.partial(resume, uuid=uuid))


async def withdraw(
    storage: Storage, name: str, *, overlay: str | None = None, force: bool = True
) -> None:
    """Serve an export no more and delete what was written to it; no error if it is not there.

    Args:
        storage: its server.
        name: of it.
        overlay: path of the file of its writes, which may be there without it; None has none.
        force: even though a client is connected; else it is then left as it is.
    """
    try:
        await storage.remove(name, force=force, discard=overlay is not None)
    except StorageError as exc:
        if exc.kind != _NO_EXPORT:
            raise
    if overlay is None:
        return
    try:
        await storage.delete_overlay(overlay)
    except StorageError as exc:
        if exc.kind != _NO_OVERLAY:
            raise


async def _serve(
    storage: Storage, table: Mapping[str, Any], undo: Undo, *, overlay: str | None = None
) -> None:
    name = table["name"]
    is_ours, may_be_there = False, True
    try:
        await storage.add(table)
        is_ours = True
    except StorageError as exc:
        may_be_there = exc.kind == _NO_ANSWER
        raise
    finally:
        if may_be_there:
            back = functools.partial(withdraw, storage, name, overlay=overlay, force=is_ours)
            undo.by(f"export {name}", back)
