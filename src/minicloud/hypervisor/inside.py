"""All libvirt says of one guest that an operator may want to see, in one go.

Statistics are asked for without waiting for qemu (NOWAIT): a guest that hangs is when one looks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from minicloud.domain.devices import Devices, parse_devices
from minicloud.hypervisor.binding import libvirt_module
from minicloud.hypervisor.power import Power, look

__all__ = ["Inside", "Traffic", "look_inside"]

_NANOSECONDS: Final = 1e9


@dataclass(frozen=True, slots=True)
class Traffic:
    """What went through a disk or a card since the guest was started: bytes and requests each way.

    For a disk `ins` are reads, for a card what the guest received.
    """

    ins: int
    outs: int
    in_requests: int
    out_requests: int


@dataclass(frozen=True, slots=True)
class Inside:
    """What libvirt says.

    Attributes:
        power: how the guest is.
        devices: what it has.
        disks: target → traffic; of a running guest alone.
        cards: the card's end on the node → traffic; likewise.
        cpu_seconds: of processor time it has used, or None.
        resident: bytes of the node's memory it takes, or None.
        autostart: whether it starts with its node.
    """

    power: Power
    devices: Devices
    disks: Mapping[str, Traffic]
    cards: Mapping[str, Traffic]
    cpu_seconds: float | None
    resident: int | None
    autostart: bool


def look_inside(uuid: str) -> Callable[[Any], Inside]:
    """Ask for all of it."""

    def work(connection: Any) -> Inside:
        lib = libvirt_module()
        domain = connection.lookupByUUIDString(uuid)
        wanted = (
            lib.VIR_DOMAIN_STATS_CPU_TOTAL
            | lib.VIR_DOMAIN_STATS_BALLOON
            | lib.VIR_DOMAIN_STATS_BLOCK
            | lib.VIR_DOMAIN_STATS_INTERFACE
        )
        flags = lib.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
        [(_, stats)] = connection.domainListGetStats([domain], wanted, flags)
        return Inside(
            power=look(uuid)(connection),
            devices=parse_devices(domain.XMLDesc()),
            disks=_traffic(stats, "block", "bytes", "reqs", ("rd", "wr")),
            cards=_traffic(stats, "net", "bytes", "pkts", ("rx", "tx")),
            cpu_seconds=stats["cpu.time"] / _NANOSECONDS if "cpu.time" in stats else None,
            resident=stats["balloon.rss"] << 10 if "balloon.rss" in stats else None,
            autostart=bool(domain.isPersistent() and domain.autostart()),
        )

    return work


def _traffic(
    stats: Mapping[str, Any], kind: str, size: str, count: str, ways: tuple[str, str]
) -> dict[str, Traffic]:
    """Read libvirt's numbered records; one that a guest does not count is left out."""
    ins, outs = ways
    found = {}
    for number in range(stats.get(f"{kind}.count", 0)):
        base = f"{kind}.{number}"
        if f"{base}.{ins}.{size}" in stats:
            found[stats[f"{base}.name"]] = Traffic(
                stats[f"{base}.{ins}.{size}"], stats.get(f"{base}.{outs}.{size}", 0),
                stats.get(f"{base}.{ins}.{count}", 0), stats.get(f"{base}.{outs}.{count}", 0),
            )  # fmt: skip
    return found
