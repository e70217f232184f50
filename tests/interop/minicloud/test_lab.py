"""The lab does what it says: each operation, seen by plain ssh, virsh and sockets."""

import errno
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab import Lab, LabError
from minicloud.inventory.reading import read_inventory
from waiting import eventually

LIB = Path(__file__).parents[2] / "lib"


def ssh(lab, node, *words, check=True):
    return subprocess.run(
        [lab.ssh, "-o", "ConnectTimeout=10", f"root@{node.address}", *words],
        capture_output=True, text=True, timeout=60, check=check, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def virsh(lab, node, *words, check=True):
    """Ask libvirtd from outside; what it prints, or its error."""
    return ssh(lab, node, "virsh", "-q", "-c", "qemu:///system", *words, check=check)


def connect(node, timeout=20.0):
    return socket.create_connection((node.address, 22), timeout=timeout)


def failure(node):
    """The errno that a client of the node's sshd gets, by name."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is what the tests compare
        connect(node).close()
    return errno.errorcode[caught.value.errno]


def state(node, daemon):
    """One letter of proc(5): T is stopped."""
    pid = node.run(["cat", f"/run/lab/{daemon}.pid"]).strip()
    return node.run(["ps", "-o", "state=", "-p", pid]).strip()


def test_each_node_is_a_machine_of_its_own(lab):
    names = [ssh(lab, node, "hostname").stdout.strip() for node in lab.nodes.values()]
    uuids = {
        re.search("<uuid>(.*)</uuid>", virsh(lab, node, "capabilities").stdout)[1]
        for node in lab.nodes.values()
    }
    assert names == ["n1", "n2", "n3"]
    assert len(uuids) == 3, "libvirt refuses to migrate to what it takes for the same machine"


def test_what_this_machines_shell_begins_with_is_not_run_on_a_node(lab):
    shown = ssh(lab, lab.nodes[1], "cat", "~/.bashrc", check=False).stdout
    assert shown == ""


def test_this_machine_has_nothing_of_the_lab(lab):
    shown = Path("/proc/1/net/dev").read_text()
    assert "vmbr0" not in shown
    assert "br0" not in shown


def test_a_power_cut_takes_the_node_away_at_once_and_leaves_its_files(lab):
    node = lab.nodes[2]
    kept = "/var/lib/libvirt/kept"
    ssh(lab, node, "touch", kept)
    node.off()
    assert failure(node) == "EHOSTUNREACH"
    with pytest.raises(LabError, match="n2 is off"):
        node.run(["true"])
    node.on()
    assert ssh(lab, node, "ls", kept).stdout.strip() == kept


def test_a_node_switches_itself_off(lab):
    node = lab.nodes[1]
    ssh(lab, node, "poweroff", check=False)
    eventually(lambda: not node.is_on())
    assert failure(node) == "EHOSTUNREACH"


def test_a_magic_packet_switches_a_node_on(lab):
    first, second = lab.nodes[1], lab.nodes[2]
    first.off()
    second.off()
    magic = b"\xff" * 6 + bytes.fromhex(first.mac.replace(":", "")) * 16
    with lab.waking() as woken, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.sendto(magic, ("255.255.255.255", 9))
        eventually(lambda: woken)
    assert woken == ["n1"]
    assert first.is_on()
    assert not second.is_on()


def test_without_a_cable_there_is_no_route(lab):
    node = lab.nodes[1]
    node.cut()
    assert failure(node) == "EHOSTUNREACH"
    node.heal()
    assert ssh(lab, node, "true").returncode == 0


def test_a_black_hole_says_nothing_at_all(lab):
    node = lab.nodes[1]
    node.blackhole()
    with pytest.raises(TimeoutError):
        connect(node, timeout=4)  # without an answer to ARP it would fail after three
    node.heal()
    assert ssh(lab, node, "true").returncode == 0


def test_a_hung_sshd_accepts_and_says_nothing(lab):
    node = lab.nodes[3]
    node.hang("sshd")
    assert state(node, "sshd") == "T"
    with connect(node) as sock:
        sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            sock.recv(4)
        node.unhang("sshd")
        sock.settimeout(20)
        assert sock.recv(4) == b"SSH-"


def test_a_hung_libvirtd_leaves_sshd_alone(lab):
    node = lab.nodes[3]
    node.hang("libvirtd")
    assert state(node, "libvirtd") == "T"
    asked = ssh(lab, node, "timeout 0.5 virsh -c qemu:///system uri", check=False)
    assert asked.returncode == 124, "it waits in vain"
    node.unhang("libvirtd")
    assert virsh(lab, node, "uri").stdout.strip() == "qemu:///system"


def test_all_of_a_node_hangs_and_goes_on(lab):
    node = lab.nodes[3]
    node.hang("all")
    assert {state(node, daemon) for daemon in ("sshd", "libvirtd", "virtlogd")} == {"T"}
    node.unhang("all")
    assert virsh(lab, node, "uri").returncode == 0


def test_a_stopped_sshd_refuses(lab):
    node = lab.nodes[2]
    node.stop("sshd")
    assert failure(node) == "ECONNREFUSED"
    node.start("sshd")
    assert ssh(lab, node, "true").returncode == 0


def test_a_stopped_libvirtd_has_no_socket(lab):
    node = lab.nodes[2]
    node.hang("libvirtd")
    node.stop("libvirtd")
    asked = virsh(lab, node, "uri", check=False)
    assert "Failed to connect socket" in asked.stderr
    node.start("libvirtd")
    assert virsh(lab, node, "uri").returncode == 0


def test_a_slow_node_receives_slowly(lab):
    node = lab.nodes[1]
    node.slow(1600)  # 200 kB/s
    began = time.monotonic()
    subprocess.run(
        [lab.ssh, f"root@{node.address}", "cat >/dev/null"], input=bytes(300_000), check=True,
        timeout=60,
    )  # fmt: skip
    took = time.monotonic() - began
    assert took > 1.2, "1.5 s less what a burst carries"
    node.heal()
    shown = subprocess.run(["tc", "qdisc", "show"], capture_output=True, text=True, check=True)
    assert "tbf" not in shown.stdout


def test_a_node_reports_the_memory_it_is_told_to(lab):
    node = lab.nodes[1]
    node.report_memory(total=5000, free=3000)
    shown = virsh(lab, node, "nodememstats").stdout
    assert int(re.search(r"total *: *(\d+)", shown)[1]) == 5000 << 10
    assert int(re.search(r"free *: *(\d+)", shown)[1]) == 3000 << 10
    node.restore()
    shown = virsh(lab, node, "nodememstats").stdout
    assert int(re.search(r"total *: *(\d+)", shown)[1]) != 5000 << 10


def test_a_changed_host_key_is_refused_until_it_is_restored(lab):
    node = lab.nodes[2]
    node.change_host_key()
    asked = ssh(lab, node, "true", check=False)
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in asked.stderr
    node.restore()
    assert ssh(lab, node, "true").returncode == 0


def test_restore_mends_everything_at_once(lab):
    first, second, third = lab.nodes.values()
    first.off()
    second.change_host_key()
    second.stop("libvirtd")
    second.hang("all")
    third.stop("sshd")
    third.blackhole()
    lab.restore()
    for node in lab.nodes.values():
        assert virsh(lab, node, "list", "--all").stdout.strip() == ""


def test_two_labs_with_equal_addresses_do_not_meet(lab, tmp_path):
    with Lab(tmp_path / "other", 1) as other:
        assert other.nodes[1].address == lab.nodes[1].address
        other.nodes[1].off()
        assert ssh(lab, lab.nodes[1], "hostname").stdout.strip() == "n1"
    assert not (tmp_path / "other").exists()
    assert ssh(lab, lab.nodes[1], "hostname").stdout.strip() == "n1"


def test_a_lab_ends_with_its_maker_even_when_that_is_killed(tmp_path):
    script = (
        "import sys, pathlib, lab\n"
        "with lab.Lab(pathlib.Path(sys.argv[1]), 1) as made:\n"
        "    print(made.hub.process.pid, made.nodes[1].init.pid, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "lab"], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(LIB)},
    ) as maker:  # fmt: skip
        pids = maker.stdout.readline().split()
        assert len(pids) == 2
        maker.send_signal(signal.SIGKILL)
    eventually(lambda: not any(Path(f"/proc/{int(pid)}").exists() for pid in pids))


def test_the_command_line_makes_a_lab_that_stays_until_it_is_taken_down(tmp_path):
    folder = tmp_path / "lab"

    def run(*words, check=True):
        return subprocess.run(
            [sys.executable, "-m", "lab", "--folder", folder, *words], capture_output=True,
            text=True, timeout=120, check=check, stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(LIB)},
        )  # fmt: skip

    try:
        assert "n2 10.7.7.2" in run("up", "2", "--net", "10.7.7").stdout
        assert run("sh", "2", "hostname").stdout.strip() == "n2"
        asked = run("hub", folder / "ssh", "root@10.7.7.1", "hostname")
        assert asked.stdout.strip() == "n1"
        run("off", "2")
        assert "n2 10.7.7.2 off" in run("status").stdout
        run("on", "2")
        again = run("up", check=False)
        assert (again.returncode, "there is a lab" in again.stderr) == (1, True)
        assert run("sh", "2", "hostname").stdout.strip() == "n2", "the lab was left alone"
    finally:
        run("down")
    assert not folder.exists()
    assert run("down").returncode == 0, "safe to repeat"


def test_the_inventory_is_one_that_minicloud_reads(lab, inventory, export_server):
    read = read_inventory(inventory)
    assert [node.host for node in read.nodes.values()] == ["10.99.0.1", "10.99.0.2", "10.99.0.3"]
    assert read.nbd.address == export_server.address
