"""A guest's plan as libvirt's domain XML.

Every element is there for a reason that stands beside it; what is left out, libvirt fills in with
what suits the node (the emulator, controllers, addresses). Source: libvirt.org/formatdomain.html.

Tried with libvirt 9.0 and QEMU 7.2: a plain NBD disk migrates live without further flags, and
`<reconnect delay>` is dropped there in silence, so it is always written and `reconnect_kept` tells
what became of it.
"""

from collections.abc import Iterable, Iterator
from typing import Final
from xml.etree import ElementTree as ET

from minicloud.domain.metadata import origin_element
from minicloud.domain.plan import Disk, GuestPlan, Network, NetworkKind, TcpServer, UnixServer
from minicloud.model.guest import GuestKind
from minicloud.model.inventory import Bus, VirtType

__all__ = ["console_log", "domain_xml", "reconnect_kept", "source_element"]

_TARGETS: Final = {Bus.VIRTIO: "vd", Bus.SCSI: "sd", Bus.SATA: "sd", Bus.IDE: "hd"}
_MODES: Final = frozenset({"maximum", "host-model", "host-passthrough"})
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"


def domain_xml(plan: GuestPlan) -> str:
    """Write a guest down, indented, with a line's end at its end."""
    domain = _made(
        "domain",
        {"type": str(plan.virt_type)},
        _text("name", plan.name),
        _text("uuid", plan.uuid),
        _made("metadata", {}, origin_element(plan.origin)),
        _text("memory", str(-(-plan.memory // 1024)), unit="KiB"),
        _text("vcpu", str(plan.vcpus)),
        _os(plan),
        *_processor(plan),
        *_clock(plan),
        _text("on_poweroff", "destroy"),
        _text("on_reboot", "restart"),
        _text("on_crash", "destroy"),
        _devices(plan),
    )
    ET.indent(domain)
    return ET.tostring(domain, encoding="unicode") + "\n"


def reconnect_kept(xml: str) -> bool:
    """Tell whether libvirt kept `<reconnect>` on every NBD disk of a domain it was given.

    Where it did not, an export server that is away for a moment pauses the guest (`error_policy`),
    and it has to be resumed by hand.
    """
    sources = ET.fromstring(xml).findall(  # noqa: S314 -- libvirtd's own
        "./devices/disk/source[@protocol='nbd']"
    )
    return all(source.find("reconnect") is not None for source in sources)


def console_log(name: str) -> str:
    """Name the file on the node where virtlogd keeps what a guest's serial console said."""
    return f"/var/log/libvirt/qemu/{name}-console.log"


def source_element(
    export: str, server: TcpServer | UnixServer, *, reconnect: int | None = None
) -> ET.Element:
    """Make a disk's <source>: an export.

    Args:
        export: its name.
        server: where it is.
        reconnect: seconds that requests wait for a server that went away; None says nothing of it.
    """
    values = {"protocol": "nbd", "name": export}
    if isinstance(server, UnixServer):
        host = _made("host", {"transport": "unix", "socket": server.path})
    else:
        host = _made("host", {"name": server.host, "port": str(server.port)})
        if server.tls:
            values["tls"] = "yes"
            if server.tls_hostname is not None:
                values["tlsHostname"] = server.tls_hostname
    delay = [] if reconnect is None else [_made("reconnect", {"delay": str(reconnect)})]
    return _made("source", values, host, *delay)


def _os(plan: GuestPlan) -> ET.Element:
    machine = {"machine": _machine(plan)} if plan.arch == "x86_64" else {}
    direct = [
        _text(tag, value)
        for tag, value in (
            ("kernel", plan.kernel),
            ("initrd", plan.initrd),
            ("cmdline", plan.cmdline),
        )
        if value is not None
    ]
    boot = [] if direct else [_made("boot", {"dev": "hd"})]
    return _made("os", {}, _text("type", "hvm", arch=plan.arch, **machine), *direct, *boot)


def _machine(plan: GuestPlan) -> str:
    """Choose the board: only the old one has IDE."""
    return "pc" if any(disk.bus is Bus.IDE for disk in plan.disks) else "q35"


def _processor(plan: GuestPlan) -> Iterator[ET.Element]:
    if plan.arch == "x86_64":
        # without ACPI no guest hears of a shutdown
        yield _made("features", {}, _made("acpi"), _made("apic"))
    if plan.cpu in _MODES:
        yield _made("cpu", {"mode": plan.cpu})
    else:
        # forbid: another model than the one named would surprise at the first migration
        model = _text("model", plan.cpu, fallback="forbid")
        yield _made("cpu", {"mode": "custom", "match": "exact"}, model)


def _clock(plan: GuestPlan) -> Iterator[ET.Element]:
    if plan.arch != "x86_64" or plan.virt_type is not VirtType.KVM:
        yield _made("clock", {"offset": "utc"})
        return
    # virt-install's own choice, after the kernel's advice on guests that lose ticks
    yield _made(
        "clock",
        {"offset": "utc"},
        _made("timer", {"name": "rtc", "tickpolicy": "catchup"}),
        _made("timer", {"name": "pit", "tickpolicy": "delay"}),
        _made("timer", {"name": "hpet", "present": "no"}),
    )


def _devices(plan: GuestPlan) -> ET.Element:
    # append: a pet's console is one story, a new head of cattle has nothing to do with the last one
    append = "on" if plan.kind is GuestKind.PET else "off"
    return _made(
        "devices",
        {},
        *_disks(plan),
        *_scsi(plan.disks),
        *_interface(plan.network, plan.mac, plan.network_model),
        _made(
            "serial",
            {"type": "pty"},
            _made("log", {"file": console_log(plan.name), "append": append}),
            _made("target", {"port": "0"}),
        ),
        _made("console", {"type": "pty"}, _made("target", {"type": "serial", "port": "0"})),
        _made(
            "channel",
            {"type": "unix"},
            _made("target", {"type": "virtio", "name": "org.qemu.guest_agent.0"}),
        ),
        *_usb(plan),
        # absolute, so that a viewer's pointer is where the operator's is
        _made("input", {"type": "tablet", "bus": "virtio"}),
        # loopback only: VNC has no password here, the way to it is ssh
        _made("graphics", {"type": "vnc", "autoport": "yes", "listen": "127.0.0.1"}),
        _made("video", {}, _made("model", {"type": "vga" if plan.arch == "x86_64" else "virtio"})),
        _made("memballoon", {"model": "virtio"}),
        _made("rng", {"model": "virtio"}, _text("backend", "/dev/urandom", model="random")),
    )


def _disks(plan: GuestPlan) -> Iterator[ET.Element]:
    counts: dict[str, int] = {}
    for disk in plan.disks:
        prefix = _TARGETS[disk.bus]
        number = counts[prefix] = counts.get(prefix, -1) + 1
        yield _disk(disk, f"{prefix}{_LETTERS[number]}", plan)


def _disk(disk: Disk, target: str, plan: GuestPlan) -> ET.Element:
    driver = {
        "name": "qemu",
        "type": "raw",
        "cache": "none",  # a node's page cache would be stale after a migration
        # the guest pauses where its disk fails, and goes on when it is resumed: no I/O error
        "error_policy": "stop",
        "rerror_policy": "stop",
    }
    if not disk.read_only:
        driver |= {"discard": "unmap", "detect_zeroes": "unmap"}  # keeps the overlay small
    marks = [_made("readonly")] if disk.read_only else []
    return _made(
        "disk",
        {"type": "network", "device": "cdrom" if disk.is_cdrom else "disk"},
        _made("driver", driver),
        source_element(disk.export, plan.server, reconnect=plan.reconnect),
        _made("target", {"dev": target, "bus": str(disk.bus)}),
        *marks,
        _text("serial", disk.serial),
    )


def _scsi(disks: Iterable[Disk]) -> Iterator[ET.Element]:
    """Name the SCSI controller: libvirt's own choice is an old one that few guests know."""
    if any(disk.bus is Bus.SCSI for disk in disks):
        yield _made("controller", {"type": "scsi", "model": "virtio-scsi"})


def _usb(plan: GuestPlan) -> Iterator[ET.Element]:
    """Keep USB out of a PC: libvirt would add it, nothing here needs it, and a boot waits for it.

    Other boards have no keyboard without.
    """
    if plan.arch == "x86_64":
        yield _made("controller", {"type": "usb", "model": "none"})


def _interface(network: Network, mac: str, model: str) -> Iterator[ET.Element]:
    if network.kind is NetworkKind.NONE:
        return
    source = {NetworkKind.NETWORK: "network", NetworkKind.BRIDGE: "bridge"}.get(network.kind)
    yield _made(
        "interface",
        {"type": str(network.kind)},
        _made("mac", {"address": mac}),
        *([_made("source", {source: network.name})] if source else []),
        _made("model", {"type": model}),
    )


def _made(tag: str, attributes: dict[str, str] | None = None, *children: ET.Element) -> ET.Element:
    element = ET.Element(tag, attributes or {})
    element.extend(children)
    return element


def _text(tag: str, text: str, **attributes: str) -> ET.Element:
    element = ET.Element(tag, attributes)
    element.text = text
    return element
