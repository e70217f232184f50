"""Domains made and removed: what `Hypervisor.call` runs on a node's own threads.

Every function takes the virConnect first, lets libvirt's error out, and returns plain values. They
go by UUID: a name may be another guest's by now.
"""

import contextlib
from dataclasses import dataclass
from typing import Any

from minicloud.hypervisor.binding import libvirt_module
from minicloud.hypervisor.facts import version
from minicloud.hypervisor.states import reason_of, state_of
from minicloud.model.guest import GuestState

__all__ = ["Made", "Standing", "create_paused", "remove", "resume", "standing"]


@dataclass(frozen=True, slots=True)
class Made:
    """A domain as libvirt took it.

    Attributes:
        xml: its own words for it; what it does not know it has dropped.
        libvirt: its version.
        before: bytes that the guests may ask for which were started before it and still run.
    """

    xml: str
    libvirt: tuple[int, int, int]
    before: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What a domain does.

    Attributes:
        state: of it.
        reason: why, or "".
    """

    state: GuestState
    reason: str


def create_paused(connection: Any, xml: str, *, is_kept: bool) -> Made:
    """Make a domain and have its processors stand still, so that nothing it says is missed.

    Args:
        connection: the virConnect.
        xml: of the domain.
        is_kept: its definition is kept, and it starts with the node; else it vanishes with its end.
    """
    libvirt = libvirt_module()
    if is_kept:
        domain = connection.defineXML(xml)
        domain.setAutostart(1)
        domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    else:
        domain = connection.createXML(xml, libvirt.VIR_DOMAIN_START_PAUSED)
    return Made(domain.XMLDesc(), version(connection.getLibVersion()), _before(connection, domain))


def _before(connection: Any, domain: Any) -> int:
    """Add up the memory of the guests with a smaller ID: libvirtd counts up as they start."""
    libvirt = libvirt_module()
    kibibytes = 0
    for other in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
        # one that ends just now has no ID any more, and no memory
        with contextlib.suppress(libvirt.libvirtError):
            if 0 <= other.ID() < domain.ID():
                kibibytes += other.maxMemory()
    return kibibytes * 1024


def resume(connection: Any, uuid: str) -> None:
    """Let a paused domain go on."""
    connection.lookupByUUIDString(uuid).resume()


def remove(connection: Any, uuid: str, *, is_forgotten: bool = True) -> bool:
    """Cut a domain's power, if it has any, and forget its definition, if that is kept.

    Args:
        connection: the virConnect.
        uuid: of the domain.
        is_forgotten: else a definition that is kept stays.

    Returns:
        Whether there was such a domain.
    """
    libvirt = libvirt_module()
    if (domain := _find(connection, uuid)) is None:
        return False
    gone = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID)
    is_kept = bool(domain.isPersistent())
    _unless(gone, domain.destroy)
    if is_kept and is_forgotten:
        flags = (
            libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
        )
        _unless((libvirt.VIR_ERR_NO_DOMAIN,), lambda: domain.undefineFlags(flags))
    return True


def standing(connection: Any, uuid: str) -> Standing | None:
    """Tell what a domain does; None if there is none."""
    libvirt = libvirt_module()
    if (domain := _find(connection, uuid)) is None:
        return None
    try:
        number, reason = domain.state()
    except libvirt.libvirtError as exc:
        if exc.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise
    state = state_of(number)
    return Standing(state, reason_of(state, reason))


def _find(connection: Any, uuid: str) -> Any:
    libvirt = libvirt_module()
    try:
        return connection.lookupByUUIDString(uuid)
    except libvirt.libvirtError as exc:
        if exc.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


def _unless(codes: tuple[int, ...], work: Any) -> None:
    """Do some work that may have been done already, which libvirt says by one of the codes."""
    try:
        work()
    except libvirt_module().libvirtError as exc:
        if exc.get_error_code() not in codes:
            raise
