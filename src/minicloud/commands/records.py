"""The records of guests on the export server, written when a guest is made and when it moves."""

import contextlib
from collections.abc import Mapping
from typing import Any

from minicloud.booting.undo import unbroken
from minicloud.commands.context import Context
from minicloud.commands.ends import Leaver
from minicloud.domain.names import guest_export_name, record_export_name
from minicloud.errors import StorageError
from minicloud.moving.record import Record, parse_record, record_export, records
from minicloud.storage.service import Storage

__all__ = ["keep_record", "read_records", "write_record"]


async def write_record(storage: Storage, name: str, record: Record) -> None:
    """Keep a guest's record, instead of the one there may be; not to be cancelled in between.

    Args:
        storage: the server of its disk.
        name: the guest's.
        record: of it.

    Raises:
        StorageError: it is not kept.
    """
    try:
        table = record_export(name, record)
    except ValueError as exc:
        raise StorageError("argument", str(exc)) from exc
    await unbroken(_replace(storage, table))


async def _replace(storage: Storage, table: Mapping[str, Any]) -> None:
    with contextlib.suppress(StorageError):
        await storage.remove(table["name"], force=True)
    await storage.add(table)


async def read_records(storage: Storage) -> Mapping[str, Record]:
    """Read all records, by the guest's name.

    Raises:
        StorageError: the server does not say.
    """
    return records({one.name: one.description for one in await storage.exports()})


async def keep_record(context: Context, leaver: Leaver, node: str) -> str:
    """Note that a guest of ours has moved.

    Returns:
        What went wrong, for the operator, or "": the guest is where it is all the same.
    """
    guest = leaver.guest
    if guest.origin is None or context.inventory.nbd is None:
        return ""
    try:
        known = {one.name: one.description for one in await context.storage.exports()}
        if guest_export_name(guest.name) not in known:
            return ""
        before = parse_record(known.get(record_export_name(guest.name), ""))
        xml = leaver.leaving.kept if before is None else before.xml
        await write_record(context.storage, guest.name, Record(node, xml))
    except StorageError as exc:
        return f"where it is now was not noted for `minicloud recover`: {exc}"
    return ""
