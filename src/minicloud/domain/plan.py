"""A guest that is to be made, decided in full: what `domain.xml` writes down and nothing else.

Invariant: a plan holds no choice any more. `auto` has become kvm or qemu, a missing setting its
default, and the same plan gives the same XML.
"""

import enum
import re
from dataclasses import dataclass
from typing import Final

from minicloud.domain.names import mac_of
from minicloud.errors import UsageError
from minicloud.model.guest import GuestKind, Origin
from minicloud.model.inventory import Bus, NbdService, Template, VirtType

__all__ = [
    "Disk",
    "GuestOptions",
    "GuestPlan",
    "Network",
    "NetworkKind",
    "TcpServer",
    "UnixServer",
    "parse_network",
    "plan_guest",
    "server_of",
]

LEAST_MEMORY: Final = 16 << 20  # bytes; less starts no firmware
_LONGEST_SERIAL: Final = 20  # bytes of a virtio-blk serial (virtio 1.2, 5.2.6.1): more is cut
_WORD = re.compile(r"[A-Za-z0-9_.:-]+")


class NetworkKind(enum.StrEnum):
    """What a guest's network card is connected to."""

    NETWORK = "network"  # one of libvirt's own
    BRIDGE = "bridge"  # of the node
    USER = "user"  # QEMU's: out, not in
    NONE = "none"  # it has no card


@dataclass(frozen=True, slots=True)
class Network:
    """A kind of network, and its name where it has one."""

    kind: NetworkKind
    name: str = ""


@dataclass(frozen=True, slots=True)
class TcpServer:
    """Exports over TCP.

    Attributes:
        host: name or address that every node reaches it by.
        port: of it.
        tls: whether to speak TLS.
        tls_hostname: the name in its certificate, if not `host`.
    """

    host: str
    port: int
    tls: bool = False
    tls_hostname: str | None = None


@dataclass(frozen=True, slots=True)
class UnixServer:
    """Exports on the guest's own node, at a socket's path there."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """An export as a guest's disk.

    Attributes:
        export: its name.
        bus: where the guest sees it.
        serial: what the guest knows it by (/dev/disk/by-id), at most 20 characters.
        read_only: the guest cannot write to it.
        is_cdrom: it is a CD-ROM, read-only whatever it says.
    """

    export: str
    bus: Bus
    serial: str
    read_only: bool = False
    is_cdrom: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestOptions:
    """What the operator asked for beyond the template; None takes the template's."""

    memory: int | None = None
    vcpus: int | None = None
    network: str | None = None
    kind: GuestKind = GuestKind.CATTLE
    seed_is_cdrom: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestPlan:
    """A guest.

    Attributes:
        name: unique in the cluster.
        uuid: its own for ever.
        origin: for its metadata.
        virt_type: KVM or QEMU.
        arch: of its processor, as `uname -m` calls it.
        cpu: mode or model of its processor.
        memory: bytes.
        vcpus: how many.
        server: where its disks are.
        disks: in the order the guest counts them; it starts from the first.
        network: what its card is connected to.
        mac: the card's address.
        network_model: kind of the card.
        kernel: path on the node of a kernel to start instead of the disk's, or None.
        initrd: likewise, or None.
        cmdline: the kernel's, or None.
        reconnect: seconds its requests wait for an export server that went away.
    """

    name: str
    uuid: str
    origin: Origin
    virt_type: VirtType
    arch: str
    cpu: str
    memory: int
    vcpus: int
    server: TcpServer | UnixServer
    disks: tuple[Disk, ...]
    network: Network
    mac: str
    network_model: str = "virtio"
    kernel: str | None = None
    initrd: str | None = None
    cmdline: str | None = None
    reconnect: int = 60

    @property
    def kind(self) -> GuestKind:
        """Cattle or pet."""
        return self.origin.kind


def plan_guest(
    template: Template,
    options: GuestOptions,
    *,
    name: str,
    uuid: str,
    origin: Origin,
    server: TcpServer | UnixServer,
    virt_type: VirtType,
    arch: str = "x86_64",
) -> GuestPlan:
    """Decide all of a guest.

    Args:
        template: what it is made of.
        options: what was asked for beyond.
        name: checked.
        uuid: new.
        origin: what its metadata is to say; names its exports.
        server: where those are.
        virt_type: of its node, and not AUTO.
        arch: likewise.

    Raises:
        UsageError: a setting that no guest can have.
    """
    assert virt_type is not VirtType.AUTO, "the caller has asked the node"
    memory = template.memory if options.memory is None else options.memory
    vcpus = template.vcpus if options.vcpus is None else options.vcpus
    if memory < LEAST_MEMORY:
        raise UsageError(f"{memory} bytes of memory start no guest; write at least 16M")
    if vcpus < 1:
        raise UsageError(f"{vcpus} vCPUs start no guest; write at least 1")
    return GuestPlan(
        name=name,
        uuid=uuid,
        origin=origin,
        virt_type=virt_type,
        arch=arch,
        cpu=_cpu(template.cpu, virt_type),
        memory=memory,
        vcpus=vcpus,
        server=server,
        disks=_disks(template, origin, name, seed_is_cdrom=options.seed_is_cdrom),
        network=parse_network(template.network if options.network is None else options.network),
        mac=mac_of(name),
        network_model=template.network_model,
        kernel=template.kernel,
        initrd=template.initrd,
        cmdline=template.cmdline,
    )


def server_of(nbd: NbdService) -> TcpServer | UnixServer:
    """Tell how guests reach the exports, on whatever node: one address, or one path on each."""
    if nbd.socket is not None:
        return UnixServer(nbd.socket)
    return TcpServer(nbd.address, nbd.port, nbd.tls, nbd.tls_hostname)


def parse_network(text: str) -> Network:
    """Read `network:NAME`, `bridge:NAME`, `user` or `none`.

    Raises:
        UsageError: it is none of these.
    """
    word, _, name = text.partition(":")
    if word in (NetworkKind.USER, NetworkKind.NONE) and text == word:
        return Network(NetworkKind(word))
    if word in (NetworkKind.NETWORK, NetworkKind.BRIDGE) and _WORD.fullmatch(name):
        return Network(NetworkKind(word), name)
    raise UsageError(f"{text!r} is no network; write network:NAME, bridge:NAME, user or none")


def _cpu(wanted: str | None, virt_type: VirtType) -> str:
    """Choose a processor; `host-passthrough` exists only where the host's own is used."""
    if virt_type is VirtType.QEMU:
        # host-model is known to tcg too, but promises what tcg cannot do; libvirt refuses
        # host-passthrough for it
        return wanted if wanted not in (None, "host-passthrough", "host-model") else "maximum"
    return wanted or "host-model"


def _disks(
    template: Template, origin: Origin, name: str, *, seed_is_cdrom: bool
) -> tuple[Disk, ...]:
    disk = Disk(export=origin.export, bus=template.bus, serial=name[:_LONGEST_SERIAL])
    if origin.seed is None:
        return (disk,)
    if not seed_is_cdrom:
        # a disk on the same bus: cloud-init finds a CD-ROM only once that has appeared, too late
        # in some images (virt-manager issue 1099)
        seed = Disk(export=origin.seed, bus=template.bus, serial="cidata", read_only=True)
    else:
        bus = Bus.IDE if template.bus is Bus.IDE else Bus.SATA
        seed = Disk(export=origin.seed, bus=bus, serial="cidata", read_only=True, is_cdrom=True)
    return disk, seed
