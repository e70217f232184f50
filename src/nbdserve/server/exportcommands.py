"""Exports that come and go while the daemon serves: the commands export.add, .remove and .list.

An export that is removed may take its overlays along: the files that its own `cow` layers name.

What a command has acknowledged is on disk. An export of the configuration cannot be removed: it
would be back after a restart.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nbdserve.config import read_export
from nbdserve.control.messages import CommandError, FailureKind
from nbdserve.errors import DeviceError
from nbdserve.params import BOOLEAN, TEXT, closest
from nbdserve.server.arguments import Arguments, Report
from nbdserve.server.exports import Added, Exports, Slot
from nbdserve.server.overlays import OverlayUsers, delete_overlay, overlay_paths
from nbdserve.server.report import Service, report_status
from nbdserve.server.state import AddedExports
from nbdserve.unbroken import run_unbroken

__all__ = ["ExportCommands", "known_slot"]

log = logging.getLogger(__name__)


class ExportCommands:
    """Add, remove and list exports.

    Args:
        service: the daemon.
        added: where those that are added are kept.
    """

    def __init__(self, service: Service, added: AddedExports) -> None:
        self._service = service
        self._added = added
        self._saving = asyncio.Lock()

    async def list(self, given: Mapping[str, Any], report: Report) -> Mapping[str, Any]:
        """List all exports, as status does."""
        Arguments(given)
        return {"exports": report_status(self._service)["exports"]}

    async def add(self, given: Mapping[str, Any], report: Report) -> Mapping[str, Any]:
        """Open an export and serve it from now on; if it cannot be opened, nothing has changed."""
        table = Arguments(given, "export").table("export")
        spec = read_export(table)
        exports = self._service.exports
        if spec.name in exports.names():
            raise CommandError(FailureKind.EXISTS, f"there is an export {spec.name!r} already")
        slot = await exports.add(spec, table)
        slot.is_new = False
        try:
            await self._save()
        except BaseException:
            exports.forget(slot)
            # cancelled, it may have been written all the same
            with contextlib.suppress(DeviceError):
                await self._save()
            await self._take_away(slot)
            raise
        log.info("export added export=%r", spec.name)
        return {"name": spec.name, "kept": self._added.is_kept}

    async def remove(self, given: Mapping[str, Any], report: Report) -> Mapping[str, Any]:
        """Serve an export no more; one that is in use only by force, which drops its clients.

        With `discard` its overlays are deleted once it is gone.
        """
        arguments = Arguments(given, "export", "force", "discard")
        name = arguments.optional("export", TEXT, "")
        slot = self._removable(name, force=arguments.optional("force", BOOLEAN, default=False))
        doomed: Sequence[Path] = ()
        if arguments.optional("discard", BOOLEAN, default=False):
            doomed = self._discardable(slot)
        exports = self._service.exports
        exports.forget(slot)  # at once, so that no client comes meanwhile
        try:
            await self._save()
        except DeviceError:
            exports.put_back(slot)
            raise
        finally:
            if slot.is_removed:
                await self._take_away(slot)
        log.info("export removed export=%r", name)
        return {"name": name, "discarded": await self._discard(name, doomed)}

    def _removable(self, name: str, *, force: bool) -> Slot:
        slot = known_slot(self._service.exports, name)
        if slot.table is None:
            raise CommandError(
                FailureKind.ARGUMENT,
                f"export {name!r} stands in the configuration; take it out there and restart",
            )
        if slot.works and not force:
            raise CommandError(
                FailureKind.BUSY, f"export {name!r} is being warmed; --force ends that"
            )
        count = self._service.clients.count_of(slot.export)
        if count and not force:
            raise CommandError(
                FailureKind.BUSY, f"export {name!r} has {count} clients; --force drops them"
            )
        return slot

    def _discardable(self, slot: Slot) -> Sequence[Path]:
        users = OverlayUsers(one for one in self._service.exports.slots() if one is not slot)
        paths = overlay_paths(slot.spec)
        for path in paths:
            if (user := users.of(path)) is not None:
                raise CommandError(
                    FailureKind.BUSY, f"overlay {path} is named by export {user!r} too"
                )
        return paths

    async def _discard(self, name: str, paths: Sequence[Path]) -> Sequence[str]:
        """Delete the overlays of an export that is gone; one that never came to be is no error."""
        deleted = []
        for path in paths:
            try:
                await run_unbroken(delete_overlay, path)
            except FileNotFoundError:
                continue
            except DeviceError as exc:
                raise DeviceError(f"export {name!r} is served no more, but {exc}") from exc
            deleted.append(str(path))
        return deleted

    async def _take_away(self, slot: Slot) -> None:
        await self._service.exports.retire(slot, self._service.clients.end)

    async def _save(self) -> None:
        async with self._saving:
            slots = self._service.exports.slots()
            added = [
                Added(slot.spec, slot.table, slot.since)
                for slot in slots
                if slot.table is not None and not slot.is_new
            ]
            await run_unbroken(self._added.save, added)


def known_slot(exports: Exports, name: str) -> Slot:
    """Find an export.

    Raises:
        CommandError: there is none of that name.
    """
    for slot in exports.slots():
        if slot.spec.name == name:
            return slot
    raise CommandError(
        FailureKind.EXPORT, f"unknown export {name!r}; {closest(name, exports.names())}"
    )
