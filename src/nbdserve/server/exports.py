"""The exports of a server by name: each one chain, shared by all connections that ask for it.

One chain an export makes CAN_MULTI_CONN true (a flush on one connection covers the writes of all)
and lets one fetch serve every client; chains that begin alike share their lower part. In a service
with many exports one that cannot be opened (a mirror is down) must not keep the others from
starting: it is tried again when asked for.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nbdserve.build import Chain, ChainPool
from nbdserve.device import Capability, Device, DeviceInfo
from nbdserve.errors import DeviceError, NbdserveError
from nbdserve.protocol.constants import MAX_PAYLOAD, TransmissionFlag
from nbdserve.protocol.messages import ExportFacts
from nbdserve.server.lease import Lease
from nbdserve.spec import ExportSpec

__all__ = ["Added", "Export", "Exports", "Slot", "export_facts", "transmission_flags"]

log = logging.getLogger(__name__)

_FLAGS = {
    Capability.FLUSH: TransmissionFlag.SEND_FLUSH | TransmissionFlag.SEND_FUA,
    Capability.FUA: TransmissionFlag.SEND_FUA,
    Capability.TRIM: TransmissionFlag.SEND_TRIM,
    Capability.WRITE_ZEROES: TransmissionFlag.SEND_WRITE_ZEROES,
    Capability.FAST_ZERO: TransmissionFlag.SEND_FAST_ZERO,
    Capability.CACHE: TransmissionFlag.SEND_CACHE,
    Capability.ROTATIONAL: TransmissionFlag.ROTATIONAL,
}


class Added(NamedTuple):
    """An export that was added while serving.

    Attributes:
        spec: parsed.
        table: as it was written.
        since: seconds since the epoch when it was added; None where an older version kept it.
    """

    spec: ExportSpec
    table: Mapping[str, Any]
    since: float | None = None


@dataclass(frozen=True, slots=True)
class Export:
    """An opened export: its device, what the wire tells of it, and its lease if it is exclusive."""

    device: Device
    facts: ExportFacts
    lease: Lease | None = None


@dataclass(slots=True)
class Slot:
    """One export.

    Attributes:
        spec: as configured.
        table: as it was added while serving; None for what the configuration has.
        since: when it was added, in seconds since the epoch; None where that is not known.
        chain: its devices, while it is open.
        export: likewise.
        failure: why it could not be opened when that was tried last.
        works: commands that use it just now.
        is_new: it is being added, and was not acknowledged yet.
        is_removed: it is no more, and must not be opened again.
        lease: who has it, if it is exclusive.
        opening: held while it is opened or closed.
    """

    spec: ExportSpec
    table: Mapping[str, Any] | None = None
    since: float | None = None
    chain: Chain | None = None
    export: Export | None = None
    failure: str | None = None
    works: set[asyncio.Task[Any]] = field(default_factory=set)
    is_new: bool = False
    is_removed: bool = False
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    lease: Lease | None = field(init=False)

    def __post_init__(self) -> None:
        self.lease = Lease(self.spec.name) if self.spec.exclusive else None


class Exports:
    """All exports of a server. Make it with `open`, end it with `close`."""

    def __init__(self, specs: Sequence[ExportSpec], added: Sequence[Added] = ()) -> None:
        self._slots = {spec.name: Slot(spec) for spec in specs}
        self._pool = ChainPool()
        self._retiring: set[asyncio.Task[None]] = set()
        for one in added:
            self._slots.setdefault(one.spec.name, Slot(*one))

    @classmethod
    async def open(
        cls, specs: Sequence[ExportSpec], *, added: Sequence[Added] = (), keep_going: bool
    ) -> "Exports":
        """Open every export, all at once.

        Args:
            specs: with names that differ.
            added: those added while it served before; one that cannot be opened is tried again
                when it is asked for. A name that is configured meanwhile is the configuration's.
            keep_going: log an export that cannot be opened and try again when it is asked for,
                as long as one can; else raise.

        Raises:
            ConfigError: a spec is wrong as written, whatever `keep_going` says.
            DeviceError: an export cannot be opened; none is left open.
        """
        exports = cls(specs, added)
        slots = list(exports._slots.values())
        outcomes = await asyncio.gather(*map(exports._open, slots), return_exceptions=True)
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        fatal = [
            outcome
            for slot, outcome in zip(slots, outcomes, strict=True)
            if isinstance(outcome, BaseException)
            and not (isinstance(outcome, DeviceError) and (keep_going or slot.table is not None))
        ]
        if fatal or (specs and len(failures) == len(slots)):
            await exports.close()
            raise (fatal or failures)[0]
        for slot, outcome in zip(slots, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                log.error("export cannot be opened export=%r: %s", slot.spec.name, outcome)
        return exports

    def names(self) -> list[str]:
        """List the names of all exports, open or not, in the order configured."""
        return list(self._slots)

    def slots(self) -> list[Slot]:
        """List all exports in the order configured, to be looked at and not to be changed."""
        return list(self._slots.values())

    @contextlib.contextmanager
    def in_use(self, name: str) -> Iterator[None]:
        """Note for the time of the block that this task uses an export, if it exists.

        Raises:
            DeviceError: the export was removed, and the work on it ended.
        """
        slot, task = self._slots.get(name), asyncio.current_task()
        if slot is None:
            yield
            return
        assert task is not None
        slot.works.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if not slot.is_removed:
                raise
            task.uncancel()
            raise DeviceError(f"export {name!r} was removed meanwhile") from None
        finally:
            slot.works.discard(task)

    def listing(self) -> list[tuple[str, str]]:
        """List name and description of all exports, for NBD_OPT_LIST."""
        return [(slot.spec.name, slot.spec.description) for slot in self._slots.values()]

    async def find(self, name: str) -> Export | None:
        """Return the export called `name`, opening it if it could not be opened before.

        Raises:
            NbdserveError: it exists and cannot be opened.
        """
        slot = self._slots.get(name)
        if slot is None:
            return None
        export = slot.export or await self._open(slot)
        return None if slot.is_removed else export

    async def add(self, spec: ExportSpec, table: Mapping[str, Any]) -> Slot:
        """Open a further export; clients may ask for it once this returns. It stays new.

        Args:
            spec: whose name no other export has.
            table: how it was written, to be kept.

        Raises:
            NbdserveError: it cannot be opened, and is not there then.
        """
        assert spec.name not in self._slots, "the caller looks"
        slot = self._slots[spec.name] = Slot(spec, table, time.time(), is_new=True)
        try:
            await self._open(slot)
        except BaseException:
            self.forget(slot)
            raise
        return slot

    def forget(self, slot: Slot) -> None:
        """Let no client find this export any more; those who have it keep it."""
        slot.is_removed = True
        if self._slots.get(slot.spec.name) is slot:
            del self._slots[slot.spec.name]

    def put_back(self, slot: Slot) -> None:
        """Undo `forget`, unless another export has its name by now."""
        if slot.spec.name not in self._slots:
            slot.is_removed = False
            self._slots[slot.spec.name] = slot

    async def retire(self, slot: Slot, end_clients: Callable[[Export], Awaitable[object]]) -> None:
        """End all that uses an export that was forgotten, and close it.

        Cancelled, it goes on, for what is half closed would keep its files and their locks; `close`
        waits for it.

        Args:
            slot: which.
            end_clients: ends the clients of an export, and waits for that.

        Raises:
            DeviceError: something was lost when it was closed.
        """
        task = asyncio.get_running_loop().create_task(self._retire(slot, end_clients))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
        await asyncio.shield(task)

    async def _retire(self, slot: Slot, end_clients: Callable[[Export], Awaitable[object]]) -> None:
        try:
            for work in slot.works:
                work.cancel()
            if slot.works:
                await asyncio.wait(slot.works)
            if slot.export is not None:
                await end_clients(slot.export)
            await self._close_one(slot)
        except Exception as exc:
            told = "" if isinstance(exc, DeviceError) else f"{type(exc).__name__}: "
            log.warning("export did not close well export=%r: %s%s", slot.spec.name, told, exc)
            raise

    async def _close_one(self, slot: Slot) -> None:
        async with slot.opening:
            chain, slot.chain, slot.export = slot.chain, None, None
            if chain is not None:
                await chain.close()

    async def close(self) -> None:
        """Close every chain; called when no connection is left."""
        if self._retiring:
            await asyncio.wait(self._retiring)
        for slot in self._slots.values():
            await self._close_one(slot)

    async def _open(self, slot: Slot) -> Export:
        async with slot.opening:
            if slot.is_removed:
                raise DeviceError(f"export {slot.spec.name!r} was removed meanwhile")
            if slot.export is None:
                try:
                    slot.chain = await self._pool.open(slot.spec)
                except OSError as exc:
                    slot.failure = str(exc)
                    if isinstance(exc, NbdserveError):
                        raise
                    raise DeviceError(str(exc), exc.errno) from exc
                slot.failure = None
                device = slot.chain.outermost
                slot.export = Export(device, export_facts(slot.spec, device.info), slot.lease)
            return slot.export


def export_facts(spec: ExportSpec, info: DeviceInfo) -> ExportFacts:
    """Turn what a device is into what the wire tells of its export."""
    minimum, preferred, maximum = info.block_size
    can = info.can & ~Capability.WRITES if spec.read_only else info.can
    return ExportFacts(
        name=spec.name,
        description=spec.description,
        size=info.size,
        flags=transmission_flags(can, exclusive=spec.exclusive),
        minimum=minimum,
        preferred=max(preferred, minimum, 512),
        maximum=min(max(maximum, preferred), MAX_PAYLOAD),
    )


def transmission_flags(can: Capability, *, exclusive: bool = False) -> TransmissionFlag:
    """Turn capabilities into transmission flags (spec, "Transmission flags").

    CAN_MULTI_CONN is always true here, for all connections share one chain; but a client of an
    exclusive export must not try for a second connection.
    """
    flags = TransmissionFlag.HAS_FLAGS
    if not exclusive:
        flags |= TransmissionFlag.CAN_MULTI_CONN
    if not can & Capability.WRITE:
        can &= ~Capability.WRITES
        flags |= TransmissionFlag.READ_ONLY
    for capability, flag in _FLAGS.items():
        if can & capability:
            flags |= flag
    return flags
