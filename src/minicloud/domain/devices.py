"""A domain's XML, as libvirt gives it for a guest that is there → its disks, cards and displays.

Also for domains minicloud did not make, so nothing is taken for granted: what is missing is "" or
None. Source: libvirt.org/formatdomain.html.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree as ET

__all__ = ["Card", "Devices", "Display", "GuestDisk", "parse_devices"]

_AGENT: Final = "org.qemu.guest_agent.0"  # the channel qemu-ga opens, in every distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestDisk:
    """A disk.

    Attributes:
        target: its name on its bus, `vda`.
        bus: virtio, scsi, sata …
        device: disk, cdrom, floppy or lun.
        source: what is behind it: an NBD URI, a path, `pool/volume`, or "" for an empty drive.
        export: name of its NBD export; None if it is none.
        is_read_only: whether the guest cannot write to it.
        reconnects: whether libvirt kept `<reconnect>`, without which the guest pauses as soon as
            the server of the export goes away; None where there is no export.
    """

    target: str
    bus: str
    device: str
    source: str
    export: str | None
    is_read_only: bool
    reconnects: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A network card.

    Attributes:
        mac: lower case.
        model: virtio, e1000 …
        kind: network, bridge, user …
        source: the network, bridge or device it is connected to, or "".
        target: its end on the node (`vnet0`) while the guest runs, or "".
    """

    mac: str
    model: str
    kind: str
    source: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Display:
    """A graphical console.

    Attributes:
        kind: vnc or spice (others are not told).
        host: address on the node it listens at, or "" if at none.
        port: TCP port, or None: the guest is off, or it listens elsewhere.
        tls_port: of SPICE with TLS, or None.
        socket: path of a Unix socket on the node, or None.
    """

    kind: str
    host: str
    port: int | None
    tls_port: int | None
    socket: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """What of a domain's devices matters to its operator.

    Attributes:
        disks: in the order of the XML.
        cards: likewise.
        displays: likewise.
        has_agent: whether there is a channel for a guest agent.
        is_agent_there: whether an agent has opened it.
    """

    disks: tuple[GuestDisk, ...]
    cards: tuple[Card, ...]
    displays: tuple[Display, ...]
    has_agent: bool
    is_agent_there: bool


def parse_devices(xml: str) -> Devices:
    """Read a domain's XML, that of a running guest or a defined one."""
    root = ET.fromstring(xml)  # noqa: S314 -- libvirtd's own; expat bounds what entities become
    devices = root.find("./devices")
    if devices is None:
        devices = ET.Element("devices")
    channels = devices.findall(f"./channel/target[@name='{_AGENT}']")
    return Devices(
        disks=tuple(map(_disk, devices.findall("./disk"))),
        cards=tuple(map(_card, devices.findall("./interface"))),
        displays=tuple(_displays(devices)),
        has_agent=bool(channels),
        is_agent_there=any(channel.get("state") == "connected" for channel in channels),
    )


def _disk(element: ET.Element) -> GuestDisk:
    source = element.find("./source")
    is_nbd = source is not None and source.get("protocol") == "nbd"
    return GuestDisk(
        target=_attribute(element, "./target", "dev"),
        bus=_attribute(element, "./target", "bus"),
        device=element.get("device", "disk"),
        source="" if source is None else _source(source),
        export=source.get("name", "") if source is not None and is_nbd else None,
        is_read_only=element.find("./readonly") is not None,
        reconnects=element.find("./source/reconnect") is not None if is_nbd else None,
    )


def _source(element: ET.Element) -> str:
    """Name what is behind a disk, in the form other tools take where there is one."""
    protocol = element.get("protocol")
    if protocol is None:
        pool, volume = element.get("pool"), element.get("volume")
        if pool is not None:
            return f"{pool}/{volume}"
        return next(
            (element.attrib[key] for key in ("file", "dev", "dir") if key in element.attrib), ""
        )
    name = element.get("name", "")
    host = element.find("./host")
    if host is None:
        return f"{protocol}:///{name}"
    if host.get("transport") == "unix":
        return f"{protocol}+unix:///{name}?socket={host.get('socket', '')}"
    scheme = f"{protocol}s" if protocol == "nbd" and element.get("tls") == "yes" else protocol
    where = host.get("name", "")
    where = f"[{where}]" if ":" in where else where
    port = host.get("port")
    return f"{scheme}://{where}{f':{port}' if port else ''}/{name}"


def _card(element: ET.Element) -> Card:
    kind = element.get("type", "")
    source = element.find("./source")
    given = {} if source is None else source.attrib
    return Card(
        mac=_attribute(element, "./mac", "address").lower(),
        model=_attribute(element, "./model", "type"),
        kind=kind,
        source=next((given[key] for key in (kind, "bridge", "dev") if key in given), ""),
        target=_attribute(element, "./target", "dev"),
    )


def _displays(devices: ET.Element) -> Iterator[Display]:
    for element in devices.findall("./graphics"):
        kind = element.get("type", "")
        if kind in ("vnc", "spice"):
            listen = element.find("./listen[@type='socket']")
            path = element.get("socket") or (None if listen is None else listen.get("socket"))
            yield Display(
                kind=kind,
                host=element.get("listen") or _attribute(element, "./listen", "address"),
                port=_port(element.get("port")),
                tls_port=_port(element.get("tlsPort")),
                socket=path,
            )


def _port(text: str | None) -> int | None:
    """Read a port; libvirt writes -1 for one that is not given out yet."""
    return int(text) if text is not None and text.isdecimal() and int(text) > 0 else None


def _attribute(element: ET.Element, path: str, name: str) -> str:
    found = element.find(path)
    return "" if found is None else found.get(name, "")
