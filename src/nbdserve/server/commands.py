"""What a control client may ask for: a table of commands, each an asynchronous function.

A command takes its arguments and a way to report progress, and returns facts. To add one, write it
and put it into `_table`.
"""

import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from nbdserve.control.messages import CommandError, FailureKind, Request
from nbdserve.params import SIZE, TEXT, closest
from nbdserve.server.arguments import Arguments, Report
from nbdserve.server.exportcommands import ExportCommands
from nbdserve.server.exports import Export, Exports
from nbdserve.server.leasecommands import LeaseCommands
from nbdserve.server.overlaycommands import OverlayCommands
from nbdserve.server.report import Service, report_status
from nbdserve.server.state import AddedExports
from nbdserve.server.warming import warm
from nbdserve.unbroken import run_unbroken

__all__ = ["Commands"]

_Command = Callable[[Mapping[str, Any], Report], Awaitable[Mapping[str, Any]]]


class Commands:
    """The commands of a running daemon.

    Args:
        service: the daemon.
        added: where exports are kept that are added.
        overlay_dir: where the overlays of guests lie, if anywhere.
    """

    def __init__(
        self, service: Service, added: AddedExports, overlay_dir: Path | None = None
    ) -> None:  # fmt: skip
        self._service = service
        self._overlay_dir = overlay_dir
        self._folders = {
            "state_dir": None if added.folder is None else str(added.folder),
            "overlay_dir": None if overlay_dir is None else str(overlay_dir),
        }
        exports = ExportCommands(service, added)
        leases = LeaseCommands(service)
        overlays = OverlayCommands(service, overlay_dir)
        self._table: Mapping[str, _Command] = {
            "status": self._status,
            "warm": self._warm,
            "export.list": exports.list,
            "export.add": exports.add,
            "export.remove": exports.remove,
            "export.handover": leases.handover,
            "export.handover-end": leases.end_handover,
            "export.disconnect": leases.disconnect,
            "overlay.list": overlays.list,
            "overlay.delete": overlays.delete,
        }

    async def carry_out(self, request: Request, report: Report) -> Mapping[str, Any]:
        """Carry a command out.

        Raises:
            CommandError: there is no such command, or it cannot be carried out.
            DeviceError: a source or layer could not do its part.
            ConfigError: an argument describes something that cannot be.
        """
        command = self._table.get(request.command)
        if command is None:
            raise CommandError(
                FailureKind.COMMAND,
                f"unknown command {request.command!r}; {closest(request.command, self._table)}",
            )
        return await command(request.arguments, report)

    async def _status(self, given: Mapping[str, Any], report: Report) -> Mapping[str, Any]:
        Arguments(given)
        space = await run_unbroken(_space, self._overlay_dir) if self._overlay_dir else None
        return {**report_status(self._service), **self._folders, "overlay_space": space}

    async def _warm(self, given: Mapping[str, Any], report: Report) -> Mapping[str, Any]:
        arguments = Arguments(given, "export", "offset", "length")
        name = arguments.optional("export", TEXT, "")
        offset = arguments.optional("offset", SIZE, 0)
        with self._service.exports.in_use(name):
            device = (await _found(self._service.exports, name)).device
            size = device.info.size
            length = arguments.optional("length", SIZE, max(size - offset, 0))
            if offset + length > size:
                raise CommandError(
                    FailureKind.ARGUMENT,
                    f"offset {offset} and length {length} reach past the end of the export, {size}",
                )
            return await warm(device, offset, length, report)


async def _found(exports: Exports, name: str) -> Export:
    export = await exports.find(name)
    if export is None:
        raise CommandError(
            FailureKind.EXPORT, f"unknown export {name!r}; {closest(name, exports.names())}"
        )
    return export


def _space(folder: Path) -> Mapping[str, int] | None:
    """Return the bytes of a folder's file system and those free for us; blocks (statvfs(3))."""
    try:
        found = os.statvfs(folder)
    except OSError:  # the status tells other things too
        return None
    return {"size": found.f_blocks * found.f_frsize, "free": found.f_bavail * found.f_frsize}
