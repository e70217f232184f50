"""Whether the exports a guest's disks are on are served, before it is let loose on them."""

from collections.abc import Iterable

from minicloud.commands.context import Context
from minicloud.errors import StorageError
from minicloud.model.guest import Guest, Origin
from minicloud.storage.facts import ExportFacts

__all__ = ["export_trouble", "guest_exports"]


async def guest_exports(context: Context, guest: Guest) -> list[ExportFacts] | None:
    """List the exports where a guest's disks are served.

    Returns:
        None for a guest minicloud did not make: its disks are its own affair.

    Raises:
        StorageError: the server does not tell.
    """
    if guest.origin is None or context.storage.nbd is None:
        return None
    return await context.storage.at(context.cluster.node(guest.node)).exports()


def export_trouble(
    origin: Origin, exports: Iterable[ExportFacts], *, may_be_in_use: bool
) -> StorageError | None:
    """Say why a guest should not run on its exports.

    Args:
        origin: names them.
        exports: all the server has.
        may_be_in_use: its own connection is there already.
    """
    served = {export.name: export for export in exports}
    for name in filter(None, (origin.export, origin.seed)):
        export = served.get(name)
        if export is None:
            return StorageError(
                "unknown-export", f"its export {name} is not served; see nbdctl export list"
            )
        if export.error is not None:
            return StorageError("device", f"its export {name} cannot be opened: {export.error}")
    if not may_be_in_use and served[origin.export].connections:
        return StorageError(
            "busy",
            f"its export {origin.export} is in use by somebody else; two at once would destroy "
            "it: see nbdctl status",
        )
    return None
