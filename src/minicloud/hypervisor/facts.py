"""What a node says of itself, in as few calls as libvirt allows.

Statistics of all guests come in one call, which asks no guest (NOWAIT) and no storage pool, so that
a guest or a pool that hangs does not keep the node from answering. `getFreeMemory` is not used: the
binding gives 0 when the connection dies.
"""

from typing import Any

from minicloud.domain.metadata import NAMESPACE, read_origin
from minicloud.hypervisor.binding import libvirt_module
from minicloud.hypervisor.states import ACTIVE, reason_of, state_of
from minicloud.model.guest import Guest, NodeFacts, Origin

__all__ = ["read_facts", "version", "with_namespace"]

_KIB = 1 << 10
_MIB = 1 << 20


def read_facts(connection: Any, node: str, *, with_origin: bool = True) -> NodeFacts:
    """Ask a virConnect about its node and the guests on it; runs on a thread of the node.

    Args:
        connection: the virConnect.
        node: our name of it.
        with_origin: read each guest's metadata, a call a guest.

    Raises:
        libvirtError: as libvirt says.
    """
    info = connection.getInfo()
    total, available = _memory(connection, info[1] * _MIB)
    return NodeFacts(
        hostname=connection.getHostname(),
        cpus=info[2],
        memory=total,
        memory_available=available,
        libvirt=version(connection.getLibVersion()),
        qemu=_hypervisor_version(connection),
        guests=_guests(connection, node, with_origin=with_origin),
    )


def version(number: int) -> tuple[int, int, int]:
    """Split libvirt's way of writing a version: 9002001 is 9.2.1."""
    return number // 1_000_000, number // 1_000 % 1_000, number % 1_000


def with_namespace(xml: str) -> str:
    """Give a metadata element its namespace back; libvirt takes away the one it was asked for."""
    return xml.replace("<guest", f"<guest xmlns='{NAMESPACE}'", 1)


def _memory(connection: Any, rounded: int) -> tuple[int, int | None]:
    """Return bytes in all, and bytes the kernel would give now."""
    libvirt = libvirt_module()
    try:
        stats = connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)
    except libvirt.libvirtError as exc:
        if exc.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
        return rounded, None
    free = sum(stats.get(key, 0) for key in ("free", "buffers", "cached"))
    # `available` is the kernel's own estimate, from libvirt 12.3 on
    return stats.get("total", rounded // _KIB) * _KIB, stats.get("available", free) * _KIB


def _hypervisor_version(connection: Any) -> tuple[int, int, int] | None:
    libvirt = libvirt_module()
    try:
        return version(connection.getVersion())
    except libvirt.libvirtError as exc:
        if exc.get_error_code() in {libvirt.VIR_ERR_RPC, libvirt.VIR_ERR_SYSTEM_ERROR}:
            raise
        return None  # no emulator is installed


def _guests(connection: Any, node: str, *, with_origin: bool) -> tuple[Guest, ...]:
    libvirt = libvirt_module()
    kept = {
        domain.UUIDString()
        for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_PERSISTENT)
    }
    wanted = (
        libvirt.VIR_DOMAIN_STATS_STATE
        | libvirt.VIR_DOMAIN_STATS_BALLOON
        | libvirt.VIR_DOMAIN_STATS_VCPU
    )
    rows = connection.getAllDomainStats(wanted, libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT)
    guests = [_guest(domain, stats, node, kept, with_origin=with_origin) for domain, stats in rows]
    return tuple(sorted(guests, key=lambda guest: guest.name))


def _guest(
    domain: Any, stats: dict[str, Any], node: str, kept: set[str], *, with_origin: bool
) -> Guest:
    state = state_of(stats.get("state.state", 0))
    uuid = domain.UUIDString()
    if "balloon.maximum" not in stats or "vcpu.maximum" not in stats:
        _, memory, _, vcpus, _ = domain.info()  # a driver that is not qemu's
        stats = {"balloon.maximum": memory, "vcpu.maximum": vcpus, **stats}
    return Guest(
        name=domain.name(),
        uuid=uuid,
        node=node,
        state=state,
        reason=reason_of(state, stats.get("state.reason", 0)),
        vcpus=stats.get("vcpu.current", stats["vcpu.maximum"]),
        memory=stats["balloon.maximum"] * _KIB,
        is_active=state in ACTIVE,
        is_persistent=uuid in kept,
        origin=_origin(domain) if with_origin else None,
    )


def _origin(domain: Any) -> Origin | None:
    """Read what minicloud wrote into a domain; most domains have nothing."""
    libvirt = libvirt_module()
    try:
        xml = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE)
    except libvirt.libvirtError as exc:
        if exc.get_error_code() in {
            libvirt.VIR_ERR_NO_DOMAIN_METADATA,
            libvirt.VIR_ERR_NO_DOMAIN,  # it ended between two calls
            libvirt.VIR_ERR_NO_SUPPORT,
        }:
            return None
        raise
    return read_origin(with_namespace(xml))
