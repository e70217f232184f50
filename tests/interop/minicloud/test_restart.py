"""nbdserve is started again while a guest writes and verifies: the guest sees no I/O error.

libvirt before 9.8 or so drops `<reconnect>`: qemu then fails the requests under way, the guest
pauses (error_policy='stop') with them kept, and sends them again when it is resumed. Where libvirt
keeps it the guest only waits. Either way what it wrote is there, and nothing of it saw an error.
"""

import re

import pytest

from minicloud_command import minicloud
from waiting import eventually


def console(node):
    return node.run(["cat", "/var/log/libvirt/qemu/web1-console.log"])


def passes(node):
    """How often the guest has written and verified."""
    return max(map(int, re.findall(r"GUEST-OK (\d+)", console(node))), default=-1)


def state(node):
    return node.run(["virsh", "-q", "domstate", "web1", "--reason"]).strip()


@pytest.mark.parametrize("way", ["terminate", "kill"])
def test_a_restart_of_the_server_under_a_writing_guest(
    lab, inventory, export_server, tmp_path, way
):
    node = lab.nodes[1]
    export_server.stop()
    server = export_server.start()
    data = tmp_path / "user-data"
    data.write_text("#cloud-config\n# guest.verify\n")
    told = minicloud(
        "boot", "tiny", "n1:web1", "--cloud-init", data, "--wait=console:GUEST-OK 3", "--json"
    )
    assert told.status == 0, told

    getattr(server, way)()
    is_old = any("<reconnect>" in one for one in told.document["warnings"])
    if is_old:
        eventually(lambda: "paused (I/O error)" in state(node), within=200)
    export_server.start()
    if is_old:
        resumed = minicloud("resume", "web1")
        assert resumed.status == 0, resumed
    target = passes(node) + 10
    eventually(lambda: passes(node) >= target, within=300)

    said = console(node)
    assert "GUEST-FAIL" not in said
    assert "I/O error" not in said, "as the guest's kernel has it"
