"""The tiny guest, on nodes of the lab, from an xz image over HTTP: what other tests build on.

By raw `virsh create` and `nbdctl`, so that a failure here is the lab's or the guest's.
"""

import io
import re
import socket
import subprocess

import pycdlib
import pytest

from guest import MARKER
from waiting import eventually

# qemu64: with all tcg can do (cpu mode maximum: AVX, protection keys, five-level paging) a guest
# was once seen to oops in a process that used the FPU while it was migrated, in some 130 migrations
_DOMAIN = """
<domain type='{virt_type}'>
  <name>{name}</name>
  <memory unit='MiB'>128</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <features><acpi/></features>
  <cpu mode='custom'><model>qemu64</model></cpu>
  <devices>
    {disks}
    <interface type='bridge'><source bridge='vmbr0'/><model type='virtio'/></interface>
    <serial type='pty'><log file='/var/log/libvirt/qemu/{name}.console'/></serial>
  </devices>
</domain>
"""
_DISK = """
<disk type='network' device='disk'>
  <driver name='qemu' type='raw' cache='none'/>
  <source protocol='nbd' name='{export}'><host name='{address}' port='{port}'/></source>
  <target dev='{device}' bus='virtio'/>
</disk>
"""


def virsh(lab, node, *words, given=""):
    done = subprocess.run(
        ["virsh", "-q", "-c", lab.uri(node), *words], input=given, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def boot(lab, tiny_web, export_server):
    """A function: boot a guest on a node, from its own copy-on-write export of the tiny image."""

    def start(node, name, *, words=""):
        export_server.add(
            f"guest/{name}", "--layer", f"cow:path={export_server.overlays}/{name}.cow",
            "--layer", "xz", "http", tiny_web.url("tiny.img.xz"),
        )  # fmt: skip
        disks = {"vda": f"guest/{name}"}
        if words:
            seed = export_server.overlays / f"{name}.iso"
            seed.write_bytes(cidata(name, f"#cloud-config\n# {words}\n"))
            export_server.add(f"seed/{name}", "--read-only", "file", seed)
            disks["vdb"] = f"seed/{name}"
        text = "".join(
            _DISK.format(
                export=export, device=device, address=export_server.address,
                port=export_server.port,
            )
            for device, export in disks.items()
        ).replace("<target dev='vdb'", "<readonly/><target dev='vdb'")  # fmt: skip
        xml = _DOMAIN.format(virt_type=lab.virt_type, name=name, disks=text)
        virsh(lab, node, "create", "/dev/stdin", given=xml)

    return start


def cidata(hostname, user_data):
    """A NoCloud seed as an ISO image with Rock Ridge names."""
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, vol_ident="cidata", rock_ridge="1.09")
    for number, (name, text) in enumerate(
        {"user-data": user_data, "meta-data": f"local-hostname: {hostname}\n"}.items()
    ):
        data = text.encode()
        iso.add_fp(io.BytesIO(data), len(data), f"/F{number}.;1", rr_name=name)
    image = io.BytesIO()
    iso.write_fp(image)
    iso.close()
    return image.getvalue()


def console(node, name):
    """What the guest has said so far."""
    log = node.files.log / "qemu" / f"{name}.console"
    return log.read_text(errors="replace") if log.exists() else ""


def says(node, name, pattern):
    """Wait until the guest has said what matches, and return the match."""
    eventually(lambda: re.search(pattern, console(node, name), re.MULTILINE), within=120)
    assert "GUEST-FAIL" not in console(node, name)
    return re.search(pattern, console(node, name), re.MULTILINE)


def test_a_guest_boots_on_each_node_and_powers_off(lab, boot):
    for node in lab.nodes.values():
        boot(node, f"guest-{node.name}")
    for node in lab.nodes.values():
        says(node, f"guest-{node.name}", "^GUEST-DONE")
        assert MARKER in console(node, f"guest-{node.name}")
        eventually(lambda node=node: not node.domains())


def test_a_guest_reads_its_seed_and_is_there_on_the_network(lab, boot):
    node = lab.nodes[1]
    boot(node, "web", words=f"guest.ip=10.99.0.101/24 guest.ping={lab.hub.address} guest.stay")
    says(node, "web", "^GUEST-SEED user-data: #cloud-config")
    says(node, "web", "^GUEST-SEED meta-data: local-hostname: web")
    says(node, "web", "^GUEST-PING ok")
    says(node, "web", "^GUEST-TICK 1")
    with socket.create_connection(("10.99.0.101", 22), timeout=20) as sock:
        assert sock.recv(64).startswith(b"SSH-2.0-")
    virsh(lab, node, "shutdown", "web")
    says(node, "web", "^GUEST-SHUTDOWN")
    eventually(lambda: not node.domains())


def test_a_guest_that_writes_and_verifies_goes_on_through_a_live_migration(lab, boot):
    first, second = lab.nodes[1], lab.nodes[2]
    boot(first, "busy", words="guest.verify")
    says(first, "busy", "^GUEST-OK 3")
    virsh(
        lab, first, "migrate", "--live", "busy", lab.uri(second), f"tcp://{second.address}",
        "--verbose",
    )  # fmt: skip
    assert not first.domains()
    before = int(re.findall("GUEST-OK ([0-9]+)", console(first, "busy"))[-1])
    says(second, "busy", f"^GUEST-OK {before + 10}$")
    assert "I/O error" not in console(first, "busy") + console(second, "busy")


def test_the_verifying_guest_notices_a_spoilt_block_once(lab, boot):
    """Without this the test above would prove nothing."""
    node = lab.nodes[3]
    boot(node, "victim", words="guest.verify=4 guest.spoil=2")
    eventually(lambda: "GUEST-DONE" in console(node, "victim"), within=120)
    passes = re.findall("^GUEST-(OK|FAIL pass) ([0-9]+)", console(node, "victim"), re.MULTILINE)
    assert passes == [("OK", "0"), ("OK", "1"), ("FAIL pass", "2"), ("OK", "3")]


def test_a_hung_guest_says_nothing_and_goes_on(lab, boot):
    node = lab.nodes[2]
    boot(node, "clock", words="guest.stay")
    says(node, "clock", "^GUEST-TICK 1")
    node.hang("qemu")
    pid = node.run(["cat", "/run/libvirt/qemu/clock.pid"]).strip()
    assert node.run(["ps", "-o", "state=", "-p", pid]).strip().startswith("T")
    so_far = int(re.findall("GUEST-TICK ([0-9]+)", console(node, "clock"))[-1])
    node.unhang("qemu")
    says(node, "clock", f"^GUEST-TICK {so_far + 1}")


def test_restore_takes_guests_away_running_defined_or_hung(lab, boot):
    first, second = lab.nodes[1], lab.nodes[2]
    boot(first, "one", words="guest.stay guest.deaf")
    boot(second, "two", words="guest.stay")
    xml = _DOMAIN.format(virt_type=lab.virt_type, name="three", disks="")
    virsh(lab, first, "define", "/dev/stdin", given=xml)
    second.hang("qemu")
    lab.restore()
    for node in (first, second):
        assert virsh(lab, node, "list", "--all").strip() == ""
