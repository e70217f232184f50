"""The guest that proves that guests run, under the one emulation that is everywhere."""

import shutil
import subprocess
from xml.etree import ElementTree as ET

import pytest

from minicloud.domain.plan import TcpServer
from minicloud.domain.probe import PROBE_WORD, boot_sector, probe_export, probe_xml
from minicloud.model.inventory import VirtType


def test_the_boot_sector_is_one():
    assert len(boot_sector()) == 512
    assert boot_sector().endswith(b"\x55\xaa")


@pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="needs qemu-system-x86")
@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_it_says_its_word_and_powers_off(tmp_path, machine):
    disk = tmp_path / "probe.img"
    disk.write_bytes(boot_sector().ljust(1 << 20, b"\0"))
    done = subprocess.run(
        ["qemu-system-x86_64", "-machine", f"{machine},accel=tcg", "-m", "32", "-nodefaults",
         "-display", "none", "-serial", "stdio", "-drive", f"file={disk},format=raw,if=virtio"],
        capture_output=True, timeout=120, stdin=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == PROBE_WORD


def test_its_domain_has_the_export_for_a_disk_and_nothing_it_could_write_to():
    xml = probe_xml("p", "probe/p", VirtType.KVM, TcpServer("nbd.lan", 10809))
    domain = ET.fromstring(xml)
    assert domain.get("type") == "kvm"
    assert domain.find("cpu").get("mode") == "host-passthrough"
    assert domain.find("./devices/disk/source").attrib == {"protocol": "nbd", "name": "probe/p"}
    assert domain.find("./devices/disk/readonly") is not None
    assert probe_export("probe/p")["read-only"] is True
