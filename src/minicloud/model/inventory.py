"""The inventory: what the operator wrote about nodes, images and the export server.

Values only, checked by `minicloud.inventory` while it reads them; defaults are filled in there, so
that whoever holds one of these asks nobody else.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Bus", "Defaults", "Inventory", "NbdService", "Node", "Template", "VirtType"]


class VirtType(enum.StrEnum):
    """How a node runs guests; `AUTO` believes only a guest that really booted."""

    AUTO = "auto"
    KVM = "kvm"
    QEMU = "qemu"


class Bus(enum.StrEnum):
    """Where a guest sees its disk."""

    VIRTIO = "virtio"
    SCSI = "scsi"
    SATA = "sata"
    IDE = "ide"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A machine with sshd and libvirtd: `[nodes.NAME]`.

    Attributes:
        name: ours; guests are placed as NAME:GUEST.
        host: what ssh connects to: a name, an address, or a Host of ssh_config.
        user: on the node; None leaves it to ssh_config, then to the operator's own name.
        port: of sshd; None leaves it to ssh_config, then 22.
        key: private key file; None leaves it to ssh_config and the agent.
        mac: of the card that wakes it, aa:bb:cc:dd:ee:ff; None cannot be woken.
        reserve: bytes of memory no guest gets.
        tags: words to choose nodes by.
        virt_type: the domain type of its guests.
        libvirt_socket: path on the node; None tries the usual ones.
        migrate_host: the name or address other nodes reach it by; None is `host`.
    """

    name: str
    host: str
    user: str | None = None
    port: int | None = None
    key: Path | None = None
    mac: str | None = None
    reserve: int = 1 << 30
    tags: tuple[str, ...] = ()
    virt_type: VirtType = VirtType.AUTO
    libvirt_socket: str | None = None
    migrate_host: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NbdService:
    """Where the exports are served from: `[nbd]`.

    The control socket is a path on the machine `ssh` names, or on this one where that is None.
    Guests reach the exports at `address`:`port`; or, where `socket` is given, at that path on their
    own node (nbdserve then runs on each node, `control` is a path there, `ssh` does not matter, and
    guests cannot leave their node).

    Attributes:
        address: name or address that all nodes reach it by.
        port: TCP port of the exports.
        socket: Unix socket of the exports on each node; None for TCP.
        control: path of nbdserve's control socket.
        ssh: the server as a target of ssh; None for this machine.
        tls: whether guests speak TLS to it.
        tls_hostname: the name in its certificate, if not `address`.
        overlays: folder on the server where guests' copy-on-write overlays are kept.
    """

    address: str
    port: int = 10809
    socket: str | None = None
    control: str = "/run/nbdserve/control.sock"
    ssh: Node | None = None
    tls: bool = False
    tls_hostname: str | None = None
    overlays: str = "/var/lib/nbdserve/overlays"


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a template does not say: `[defaults]`.

    Attributes:
        memory: bytes.
        vcpus: how many.
        network: libvirt's network (`network:default`), bridge (`bridge:br0`), `user` or `none`.
        bus: of the disk.
        cpu: `maximum`, `host-model`, `host-passthrough` or a model's name; None by the virt type.
    """

    memory: int = 1 << 30
    vcpus: int = 1
    network: str = "network:default"
    bus: Bus = Bus.VIRTIO
    cpu: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """An image and how guests of it are made: `[templates.NAME]`.

    Attributes:
        name: ours.
        image: URLs of one image (mirrors), or one path on the export server.
        layers: nbdserve layers over the image as one writes them (`xz`, `cache:size=1G`), leftmost
            nearest the guest; the guest's own copy-on-write layer comes on top of them.
        sha256: of the image file as downloaded, lower-case hex, or None.
        sha512: likewise.
        size: bytes the guest's disk is grown to; None is the image's own.
        minimum_size: no disk of a guest is smaller; 0 sets no limit.
        memory: bytes.
        minimum_memory: no guest has less; 0 sets no limit.
        vcpus: how many.
        bus: of the disk.
        network: as in `Defaults`.
        network_model: kind of the network card.
        cpu: as in `Defaults`.
        customize: options of `minicloud customize` to apply before the first start, in order, each
            a word and its value (`install`, `nginx`).
        user_data: cloud-init user-data: path of a file, or None for no seed unless asked for.
        kernel: path on the node of a kernel to boot directly, or None for the disk's own.
        initrd: likewise.
        cmdline: the kernel's command line, with `kernel` alone.
    """

    name: str
    image: tuple[str, ...]
    layers: tuple[str, ...] = ()
    sha256: str | None = None
    sha512: str | None = None
    size: int | None = None
    minimum_size: int = 0
    memory: int
    minimum_memory: int = 0
    vcpus: int
    bus: Bus
    network: str
    network_model: str = "virtio"
    cpu: str | None = None
    customize: tuple[tuple[str, str], ...] = ()
    user_data: Path | None = None
    kernel: str | None = None
    initrd: str | None = None
    cmdline: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """All of it.

    Attributes:
        file: where it was read from; None where it was made otherwise.
        nodes: by name, in the order written.
        nbd: the export server; None where only existing guests are looked after.
        defaults: of templates.
        templates: by name, in the order written.
        ssh_config: the ssh_config to honour; None is the user's own.
    """

    file: Path | None
    nodes: Mapping[str, Node]
    nbd: NbdService | None = None
    defaults: Defaults = field(default_factory=Defaults)
    templates: Mapping[str, Template] = field(default_factory=dict)
    ssh_config: Path | None = None
