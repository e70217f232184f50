"""A migration that the controller manages: it talks to both libvirtds, which need no keys.

The guest's memory goes from node to node by itself (libvirt.org/migration.html, "Native
migration"); both connections are ours, and if they end, the guest goes on where it was. Tried with
libvirt 9.0: an abort ends it within milliseconds.

Every function here runs on a thread of `Hypervisor`.
"""

import time
from dataclasses import dataclass
from typing import Any, Final

from minicloud.hypervisor.binding import libvirt_module

__all__ = [
    "Job",
    "Move",
    "Moved",
    "abort_job",
    "clear_half",
    "migrate",
    "read_job",
]

_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """What is to be done.

    Attributes:
        uuid: of the guest.
        address: by which its node reaches the target.
        is_active: it runs; one that does not is moved as a definition.
        is_persistent: its definition is to be kept there, and not here.
        bandwidth: most bytes a second, or None.
        tls: encrypt its memory on the way; both nodes need certificates for that.
    """

    uuid: str
    address: str
    is_active: bool
    is_persistent: bool
    bandwidth: int | None = None
    tls: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """How it went.

    Attributes:
        seconds: in all.
        downtime: seconds the guest stood still; None where libvirt does not tell.
        sent: bytes that were sent; likewise.
    """

    seconds: float
    downtime: float | None
    sent: int | None


@dataclass(frozen=True, slots=True)
class Job:
    """How far a migration is.

    Attributes:
        done: bytes sent, those sent again too.
        left: bytes to send, as far as is known yet.
    """

    done: int
    left: int


def migrate(source: Any, target: Any, move: Move) -> Moved:
    """Move a guest; returns when it is there.

    Args:
        source: virConnect of its node.
        target: virConnect of the other.
        move: what to do.

    Raises:
        libvirtError: it is not there; the guest goes on where it was.
    """
    libvirt = libvirt_module()
    domain = source.lookupByUUIDString(move.uuid)
    is_autostarted = bool(move.is_persistent and domain.autostart())
    begun = time.monotonic()
    arrived = domain.migrate3(target, _parameters(move), _flags(move))
    seconds = time.monotonic() - begun
    if is_autostarted:
        arrived.setAutostart(1)
    stats = {}
    if move.is_active:
        try:
            stats = arrived.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
        except libvirt.libvirtError:
            stats = {}  # it is there all the same
    downtime = stats.get("downtime")
    return Moved(
        seconds=seconds,
        downtime=None if downtime is None else downtime / 1000,
        sent=stats.get("data_processed"),
    )


def read_job(connection: Any, uuid: str) -> Job | None:
    """Tell how far a guest's migration is; None where none is under way."""
    libvirt = libvirt_module()
    try:
        stats = connection.lookupByUUIDString(uuid).jobStats()
    except libvirt.libvirtError:
        return None  # it has moved, or has not begun to
    if not stats.get("data_total"):
        return None
    return Job(stats.get("data_processed", 0), stats.get("data_remaining", 0))


def abort_job(connection: Any, uuid: str) -> None:
    """End a guest's migration; it is no error if none is under way."""
    libvirt = libvirt_module()
    try:
        connection.lookupByUUIDString(uuid).abortJob()
    except libvirt.libvirtError as exc:
        known = (libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN)
        if exc.get_error_code() not in known:
            raise


def clear_half(connection: Any, uuid: str) -> bool:
    """Remove what a migration that failed has left on the target: a guest that waits for it.

    Only for a guest that is known to run on its source.

    Returns:
        Whether there was one. A guest that is not waiting for a migration is not touched.
    """
    waits: bool
    libvirt = libvirt_module()
    try:
        domain = connection.lookupByUUIDString(uuid)
        state, reason = domain.state()
        waits = (state, reason) == (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION)
        if waits:
            domain.destroy()
    except libvirt.libvirtError as exc:
        if exc.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return False
        raise
    return waits


def _parameters(move: Move) -> dict[str, Any]:
    libvirt = libvirt_module()
    if not move.is_active:
        return {}
    host = f"[{move.address}]" if ":" in move.address else move.address
    parameters: dict[str, Any] = {libvirt.VIR_MIGRATE_PARAM_URI: f"tcp://{host}"}
    if move.bandwidth is not None:
        parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = max(1, move.bandwidth // _MIB)
    return parameters


def _flags(move: Move) -> int:
    libvirt = libvirt_module()
    flags: int = libvirt.VIR_MIGRATE_LIVE if move.is_active else libvirt.VIR_MIGRATE_OFFLINE
    if move.is_persistent:
        flags |= libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
    if move.tls and move.is_active:
        flags |= libvirt.VIR_MIGRATE_TLS
    return flags
