"""An export's handover from one node's client to another's, kept open for as long as a move takes.

The export server lets a second client in for a time that is asked for again and again, so that a
controller that dies half-way leaves no door open for long.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final

from minicloud.errors import StorageError
from minicloud.model.inventory import NbdService
from minicloud.moving.definition import Definition, DiskPlace
from minicloud.storage.service import Storage

__all__ = ["handed_over", "shared_exports"]

_SECONDS: Final = 60.0  # a handover lasts, unless it is asked for again
_AGAIN: Final = 20.0
_SETTLING: Final = 50  # looks whether the node that was left has closed its disks
_LOOK: Final = 0.1  # seconds between them

# An export that is not exclusive needs no handover, nor does one of a server that knows of none.
_NEEDLESS: Final = frozenset({"argument", "unknown-command"})


def shared_exports(definition: Definition, nbd: NbdService | None) -> tuple[str, ...]:
    """Name the exports of the cluster's own server that a guest may write to."""
    if nbd is None:
        return ()
    return tuple(
        disk.export
        for disk in definition.disks
        if disk.place is DiskPlace.NBD
        and not disk.is_read_only
        and (disk.host, disk.port) == (nbd.address, nbd.port)
    )


@contextlib.asynccontextmanager
async def handed_over(
    storage: Storage, exports: Sequence[str], *, again: float = _AGAIN
) -> AsyncIterator[None]:
    """Let a second client write to exports meanwhile; then the one that may not write is dropped.

    Args:
        storage: their server.
        exports: their names.
        again: seconds until it is asked for once more.

    Raises:
        StorageError: it cannot be begun; nothing has changed then.
    """
    begun: list[str] = []
    keeping = asyncio.create_task(_keep(storage, begun, again), name="handover")
    try:
        for name in exports:
            if await _begin(storage, name):
                begun.append(name)  # noqa: PERF401 -- those before one that fails are ended too
        yield
    except BaseException:
        await _end(storage, begun, keeping)
        raise
    else:
        await _settle(storage, begun)  # interrupted here, the handover ends by itself, later
        await _end(storage, begun, keeping)
    finally:
        keeping.cancel()


async def _begin(storage: Storage, name: str) -> bool:
    try:
        await storage.hand_over(name, seconds=_SECONDS)
    except StorageError as exc:
        if exc.kind in _NEEDLESS:
            return False
        raise
    return True


async def _keep(storage: Storage, names: Iterable[str], again: float) -> None:
    while True:
        await asyncio.sleep(again)
        for name in names:
            with contextlib.suppress(StorageError):  # the next one may go through
                await storage.hand_over(name, seconds=_SECONDS)


async def _settle(storage: Storage, names: Sequence[str]) -> None:
    """Wait until the node that was left has gone; ended before, the one that came is dropped."""
    for _ in range(_SETTLING if names else 0):
        with contextlib.suppress(StorageError):
            clients = {one.name: one.connections for one in await storage.exports()}
            if all(clients.get(name, 0) <= 1 for name in names):
                return
        await asyncio.sleep(_LOOK)


async def _end(storage: Storage, names: Iterable[str], keeping: asyncio.Task[None]) -> None:
    keeping.cancel()  # what it is asking for just now would begin the handover anew
    await asyncio.gather(keeping, return_exceptions=True)
    for name in names:
        with contextlib.suppress(StorageError):  # it ends by itself before long
            await storage.end_handover(name)
