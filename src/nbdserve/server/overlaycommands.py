"""The overlays of guests that come and go: the commands overlay.list and overlay.delete.

Only the folder that the daemon was given is ever looked into, and only what lies right in it.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nbdserve.control.messages import CommandError, FailureKind
from nbdserve.params import TEXT
from nbdserve.server.arguments import Arguments, Report
from nbdserve.server.overlays import OverlayUsers, delete_overlay, list_overlays
from nbdserve.server.report import Service
from nbdserve.threads import run_io
from nbdserve.unbroken import run_unbroken

__all__ = ["OverlayCommands"]

log = logging.getLogger(__name__)


class OverlayCommands:
    """List and delete overlays.

    Args:
        service: the daemon.
        folder: its overlay folder, which exists; None if it has none.
    """

    def __init__(self, service: Service, folder: Path | None) -> None:
        self._service = service
        self._path = folder

    async def list(self, given: Mapping[str, Any], report: Report) -> Mapping[str, Any]:
        """List the overlays, each with the export that names it; `folder` must be ours if given."""
        folder = self._folder(Arguments(given, "folder").optional("folder", TEXT, ""))
        found = await run_io(list_overlays, folder)
        users = OverlayUsers(self._service.exports.slots())
        return {
            "folder": str(folder),
            "overlays": [
                {
                    "path": str(one.path),
                    "name": one.path.name,
                    "size": one.size,
                    "allocated": one.allocated,
                    "mtime": one.mtime,
                    "export": users.of(one.path),
                }
                for one in found
            ],
        }

    async def delete(self, given: Mapping[str, Any], report: Report) -> Mapping[str, Any]:
        """Delete an overlay that no export names, given by its name or its whole path."""
        path = self._inside(Arguments(given, "path").optional("path", TEXT, ""))
        users = OverlayUsers(self._service.exports.slots())
        if (user := users.of(path)) is not None:
            raise CommandError(
                FailureKind.BUSY, f"overlay {path} is used by export {user!r}; remove that first"
            )
        try:
            await run_unbroken(delete_overlay, path)
        except FileNotFoundError:
            raise CommandError(FailureKind.ARGUMENT, f"there is no overlay {path}") from None
        log.info("overlay deleted path=%s", path)
        return {"path": str(path)}

    def _folder(self, given: str = "") -> Path:
        folder = self._path
        if folder is None:
            raise CommandError(
                FailureKind.ARGUMENT,
                "the daemon has no overlay folder; start it with --overlay-dir",
            )
        if given and os.path.realpath(given) != os.path.realpath(folder):
            raise CommandError(FailureKind.ARGUMENT, f"the daemon keeps overlays in {folder} only")
        return folder

    def _inside(self, given: str) -> Path:
        """Make a path out of a name; lexically, for a link in it is not to be followed."""
        folder = self._folder()
        path = folder / given
        if not given or path.name in ("", "..") or path.parent != folder or "\0" in given:
            raise CommandError(
                FailureKind.ARGUMENT, f"{given!r} is no file right in {folder}; name one there"
            )
        return path
