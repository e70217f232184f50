"""A guest that proves its node can run guests: a boot sector that says a word and powers off. Pure.

Everything that can be asked about KVM (/dev/kvm, domcapabilities, a domain that is "running") has
been seen to say yes on machines where no guest ever executes an instruction. This one does.
"""

import base64
import lzma
from collections.abc import Mapping
from typing import Any, Final
from xml.etree import ElementTree as ET

from minicloud.domain.plan import TcpServer, UnixServer
from minicloud.domain.xml import source_element
from minicloud.model.inventory import VirtType

__all__ = ["PROBE_PREFIX", "PROBE_WORD", "boot_sector", "probe_export", "probe_xml"]

PROBE_PREFIX: Final = "probe/"
PROBE_WORD: Final = b"MINICLOUD-PROBE-OK"
"""What it says on its first serial port."""

_SECTOR: Final = 512
_DISK: Final = 1 << 20  # bytes; SeaBIOS reads no smaller one, for want of a cylinder
_SIGNATURE: Final = b"\x55\xaa"

# 16-bit code, started by the BIOS at 0000:7C00 with SeaBIOS's ACPI registers at 0x600 (both of
# QEMU's x86 boards): each byte to the UART at 0x3F8 (it takes one at any time in QEMU), then SLP_EN
# with type 0 to PM1a_CNT, which is S5 there (QEMU, hw/acpi/core.c), then halts for good.
_CODE: Final = bytes.fromhex(
    "31c0"  # xor ax, ax
    "8ed8"  # mov ds, ax
    "fc"  # cld
    "be1e7c"  # mov si, 0x7C1E: the word
    "baf803"  # mov dx, 0x3F8
    "ac"  # next: lodsb
    "84c0"  # test al, al
    "7403"  # jz done
    "ee"  # out dx, al
    "ebf8"  # jmp next
    "ba0406"  # done: mov dx, 0x604
    "b80020"  # mov ax, 0x2000
    "ef"  # out dx, ax
    "fa"  # cli
    "f4"  # halt: hlt
    "ebfd"  # jmp halt
)


def boot_sector() -> bytes:
    """Make the first sector of its disk: code, the word, the BIOS's signature."""
    assert len(_CODE) == 0x1E, "the code finds its word by this"
    text = _CODE + PROBE_WORD + b"\r\n\0"
    return text.ljust(_SECTOR - len(_SIGNATURE), b"\0") + _SIGNATURE


def probe_export(name: str) -> Mapping[str, Any]:
    """Make the table of its export."""
    packed = lzma.compress(boot_sector().ljust(_DISK, b"\0"), check=lzma.CHECK_CRC32)
    return {
        "name": name,
        "description": "a guest of minicloud's that tries whether a node runs guests",
        "read-only": True,
        "layers": ["xz"],
        "source": {"type": "data", "base64": base64.b64encode(packed).decode()},
    }


def probe_xml(name: str, export: str, virt_type: VirtType, server: TcpServer | UnixServer) -> str:
    """Write the guest down: one processor of the host's own kind, a disk, a serial port.

    Args:
        name: of the domain.
        export: of its disk.
        virt_type: that is tried.
        server: where the export is.
    """
    cpu = "host-passthrough" if virt_type is VirtType.KVM else "maximum"
    domain = ET.fromstring(  # noqa: S314 -- our own text
        f"""<domain type="{virt_type}"><name>{name}</name><memory unit="MiB">32</memory>
        <vcpu>1</vcpu><os><type arch="x86_64" machine="q35">hvm</type><boot dev="hd"/></os>
        <features><acpi/></features><cpu mode="{cpu}"/><on_poweroff>destroy</on_poweroff>
        <on_crash>destroy</on_crash><devices><disk type="network" device="disk">
        <driver name="qemu" type="raw"/><target dev="vda" bus="virtio"/><readonly/></disk>
        <serial type="pty"><target port="0"/></serial>
        <console type="pty"><target type="serial" port="0"/></console>
        <memballoon model="none"/></devices></domain>"""
    )
    disk = domain.find("./devices/disk")
    assert disk is not None
    disk.insert(1, source_element(export, server))
    ET.indent(domain)
    return ET.tostring(domain, encoding="unicode") + "\n"
