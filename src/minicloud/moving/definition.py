"""What of a domain's XML decides whether it can run on another node: its disks first of all.

Read from libvirt's own output (libvirt.org/formatdomain.html), running or not. What is not looked
at here, libvirt looks at itself when it prepares the other end.
"""

import enum
import ipaddress
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree as ET

__all__ = ["Definition", "DiskPlace", "DiskSource", "parse_definition"]

_NBD_PORT: Final = 10809
_UNITS: Final = {"b": 0, "bytes": 0, "k": 10, "kib": 10, "m": 20, "mib": 20, "g": 30, "gib": 30,
                 "t": 40, "tib": 40}  # fmt: skip


class DiskPlace(enum.StrEnum):
    """Where a disk's bytes are, as far as moving goes."""

    NBD = "nbd"  # an export over TCP
    NBD_SOCKET = "nbd-socket"  # an export at a Unix socket of the node
    NETWORK = "network"  # another protocol
    LOCAL = "local"  # a file, a block device or a volume of the node
    EMPTY = "empty"  # a drive without a medium


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskSource:
    """A disk of a guest.

    Attributes:
        target: the guest's name of it, e.g. `vda`.
        place: where its bytes are.
        where: for people: a path, or a host and an export.
        host: of an export over TCP.
        port: of it.
        export: its name, for `NBD` and `NBD_SOCKET`.
        is_read_only: the guest cannot write to it.
    """

    target: str
    place: DiskPlace
    where: str = ""
    host: str = ""
    port: int = _NBD_PORT
    export: str = ""
    is_read_only: bool = False

    @property
    def is_on_loopback(self) -> bool:
        """Whether its address means another machine on every node."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A domain.

    Attributes:
        name: of the guest.
        uuid: of it.
        memory: bytes, its most.
        virt_type: `kvm`, `qemu`, ….
        arch: of its processor.
        machine: the machine type; a running guest has a versioned one (`pc-q35-7.2`).
        emulator: path on its node, or "" for libvirt's choice.
        cpu: its <cpu> element as XML, or "" where there is none.
        cpu_mode: `custom`, `host-model`, `host-passthrough`, `maximum` or "".
        disks: in the order of the XML.
        networks: libvirt's networks its cards are on.
        bridges: bridges of the node its cards are on.
        files: what it is started from on the node (kernel, initrd).
        passed: devices of the node it has to itself.
    """

    name: str
    uuid: str
    memory: int
    virt_type: str
    arch: str
    machine: str
    emulator: str = ""
    cpu: str = ""
    cpu_mode: str = ""
    disks: tuple[DiskSource, ...] = ()
    networks: tuple[str, ...] = ()
    bridges: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    passed: tuple[str, ...] = ()

    @property
    def servers(self) -> tuple[tuple[str, int], ...]:
        """Addresses of the NBD servers it needs, each once."""
        found = [(d.host, d.port) for d in self.disks if d.place is DiskPlace.NBD]
        return tuple(dict.fromkeys(found))


def parse_definition(xml: str) -> Definition:
    """Read a domain's XML.

    Raises:
        ValueError: it is no domain's.
    """
    try:
        root = ET.fromstring(xml)  # noqa: S314 -- libvirtd's own; expat bounds what entities become
    except ET.ParseError as exc:
        raise ValueError(f"no XML: {exc}") from None
    kind = root.find("./os/type")
    if root.tag != "domain" or kind is None:
        raise ValueError("no domain's XML")
    cpu = root.find("cpu")
    return Definition(
        name=root.findtext("name", ""),
        uuid=root.findtext("uuid", ""),
        memory=_bytes(root.find("memory")),
        virt_type=root.get("type", ""),
        arch=kind.get("arch", ""),
        machine=kind.get("machine", ""),
        emulator=root.findtext("./devices/emulator", ""),
        cpu="" if cpu is None else ET.tostring(cpu, encoding="unicode").strip(),
        cpu_mode="" if cpu is None else cpu.get("mode", "custom"),
        disks=tuple(_disk(element) for element in root.iterfind("./devices/disk")),
        networks=_names(root, "network"),
        bridges=_names(root, "bridge"),
        files=tuple(filter(None, (root.findtext(f"./os/{tag}") for tag in ("kernel", "initrd")))),
        passed=tuple(_passed(element) for element in root.iterfind("./devices/hostdev")),
    )


def _bytes(element: ET.Element | None) -> int:
    if element is None or not element.text:
        return 0
    return int(element.text) << _UNITS.get(element.get("unit", "KiB").lower(), 10)


def _names(root: ET.Element, kind: str) -> tuple[str, ...]:
    sources = root.iterfind(f"./devices/interface[@type='{kind}']/source")
    return tuple(dict.fromkeys(filter(None, (source.get(kind) for source in sources))))


def _disk(element: ET.Element) -> DiskSource:
    target = element.find("target")
    name = "" if target is None else target.get("dev", "")
    is_read_only = element.find("readonly") is not None
    source = element.find("source")
    if source is None or not source.attrib:
        return DiskSource(target=name, place=DiskPlace.EMPTY, is_read_only=is_read_only)
    if element.get("type") != "network":
        return DiskSource(
            target=name, place=DiskPlace.LOCAL, where=_path(source), is_read_only=is_read_only
        )
    if source.get("protocol") != "nbd":
        where = f"{source.get('protocol')}:{source.get('name', '')}"
        return DiskSource(
            target=name, place=DiskPlace.NETWORK, where=where, is_read_only=is_read_only
        )
    return _nbd(name, source, is_read_only=is_read_only)


def _nbd(name: str, source: ET.Element, *, is_read_only: bool) -> DiskSource:
    export = source.get("name", "")
    host = source.find("host")
    if host is not None and host.get("transport") == "unix":
        return DiskSource(
            target=name, place=DiskPlace.NBD_SOCKET, where=host.get("socket", ""), export=export,
            is_read_only=is_read_only,
        )  # fmt: skip
    address = "" if host is None else host.get("name", "")
    port = _port(host)
    return DiskSource(
        target=name, place=DiskPlace.NBD, where=f"{address}:{port}/{export}", host=address,
        port=port, export=export, is_read_only=is_read_only,
    )  # fmt: skip


def _port(host: ET.Element | None) -> int:
    text = "" if host is None else host.get("port", "")
    return int(text) if text.isdecimal() else _NBD_PORT


def _path(source: ET.Element) -> str:
    parts = (source.get(key) for key in ("file", "dev", "dir", "pool", "volume"))
    return "/".join(part for part in parts if part) or "a device"


def _passed(element: ET.Element) -> str:
    address = element.find("./source/address")
    numbers = {} if address is None else address.attrib
    place = ":".join(numbers.get(key, "").removeprefix("0x") for key in ("bus", "slot", "function"))
    return f"{element.get('type', 'device')} {place.strip(':')}".strip()
