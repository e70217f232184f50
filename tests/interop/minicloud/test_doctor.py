"""minicloud doctor meets real faults: each is found where it is, and hides nothing else."""

import contextlib
import json
import os
import subprocess
import sys
import time

import pytest

from exportserver import ExportServer

_NODE = """
[nodes.{name}]
host = "{address}"
user = "root"
key = "{key}"
reserve = "64M"
virt-type = "{virt_type}"
"""
_REST = """
[nbd]
address = "{address}"
port = {port}
control = "{control}"
overlays = "{overlays}"

[defaults]
network = "{network}"
memory = "128M"
"""

_PRETEND = """
mount -t tmpfs none /sys/module && mkdir /sys/module/kvm_intel
mknod /dev/kvm c 1 3 && chmod 666 /dev/kvm
"""


class Patient:
    """A lab with an inventory, whose doctor is called."""

    def __init__(self, lab, folder, server):
        self.lab = lab
        self.folder = folder
        self.server = server
        self.config = folder / "minicloud.toml"
        self.ssh_config = folder / "ssh_config"
        self.ssh_config.write_text(
            f"Host *\n  UserKnownHostsFile {lab.known_hosts}\n  GlobalKnownHostsFile none\n"
        )
        self.write()

    def write(self, network="bridge:vmbr0", virt_type=None, more=""):
        text = "".join(
            _NODE.format(name=node.name, address=node.address, key=self.lab.key,
                         virt_type=virt_type or self.lab.virt_type)
            for node in self.lab.nodes.values()
        )  # fmt: skip
        self.config.write_text(
            text
            + _REST.format(
                address=self.server.address, port=self.server.port, control=self.server.control,
                overlays=self.server.overlays, network=network,
            )
            + more
        )  # fmt: skip

    def run(self, *words):
        environment = {key: value for key, value in os.environ.items() if key != "SSH_AUTH_SOCK"}
        return subprocess.run(
            [sys.executable, "-m", "minicloud", "-c", self.config,
             "--ssh-config", self.ssh_config, "doctor", *words],
            capture_output=True, text=True, timeout=120, check=False,
            env=environment | {"MINICLOUD_KNOWN_HOSTS": str(self.folder / "known_hosts")},
        )  # fmt: skip

    def seen(self, *words):
        """Run it; give the exit status and the checks by subject and name."""
        done = self.run("--json", *words)
        assert done.stderr == ""
        checks = json.loads(done.stdout)["checks"]
        found = {(one["subject"], one["check"]): one for one in checks}
        assert len(found) == len(checks)
        return done.returncode, found


def failed_in(found):
    return {key for key, one in found.items() if one["status"] == "failed"}


def skipped_of(found, subject):
    return {name for (who, name), one in found.items()
            if who == subject and one["status"] == "skipped"}  # fmt: skip


@pytest.fixture
def server(lab, tmp_path):
    made = ExportServer(tmp_path / "nbdserve", lab.hub.address)
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def patient(lab, tmp_path, server):
    server.start()
    return Patient(lab, tmp_path, server)


@contextlib.contextmanager
def sshd_with(node, text):
    """Let a node's sshd have further settings."""
    config = node.files.ssh / "sshd_config"
    before = config.read_text()
    try:
        config.write_text(text + before)
        node.stop("sshd")
        node.start("sshd")
        yield
    finally:
        config.write_text(before)
        node.stop("sshd")
        node.start("sshd")


@contextlib.contextmanager
def firewall(node, *rule):
    node.run(["iptables", "-A", "INPUT", *rule])
    try:
        yield
    finally:
        node.run(["iptables", "-D", "INPUT", *rule])


def test_a_cluster_without_a_fault_has_none(patient, lab):
    status, found = patient.seen()
    assert failed_in(found) == set()
    assert status == 0
    assert skipped_of(found, "n1") == set()
    assert found["n1", "login"]["text"] == "as root by ssh-ed25519 key of a file (lab)"
    assert str(lab.known_hosts) in found["n1", "host-key"]["text"]
    assert found["n1", "exports"]["status"] == "ok"
    assert found["n2", "migration to n3"]["status"] == "ok"
    assert found["nbd", "state"]["text"].endswith(str(patient.server.state))


def test_every_node_has_a_fault_of_its_own(patient, lab):
    with (
        sshd_with(lab.nodes[2], "AllowStreamLocalForwarding no\n"),
        firewall(lab.nodes[3], "-p", "tcp", "--dport", "49152:49215", "-j", "DROP"),
    ):
        lab.nodes[1].stop("libvirtd")
        status, found = patient.seen()
    assert status == 1
    assert failed_in(found) == {
        ("n1", "socket"), ("n1", "migration to n3"), ("n2", "migration to n3"),
    }  # fmt: skip
    assert "systemctl" in found["n1", "socket"]["remedy"]
    assert skipped_of(found, "n1") == {
        "forwarding", "libvirt", "qemu", "reconnect", "memory", "cpus",
    }  # fmt: skip
    assert found["n2", "forwarding"]["status"] == "warning"
    assert "AllowStreamLocalForwarding" in found["n2", "forwarding"]["remedy"]
    assert found["n2", "libvirt"]["status"] == "ok"
    assert "49152-49215" in found["n2", "migration to n3"]["remedy"]
    assert found["n3", "migration to n2"]["status"] == "ok"


def test_a_node_that_is_off_or_shows_another_key_is_told_and_nobody_waits(patient, lab):
    lab.nodes[1].off()
    lab.nodes[2].change_host_key()
    begun = time.monotonic()
    status, found = patient.seen("--timeout", "15s")
    assert time.monotonic() - begun < 15 + 1
    assert status == 1
    assert failed_in(found) == {("n1", "tcp"), ("n2", "host-key")}
    assert found["n1", "name"]["status"] == "ok"
    assert found["n1", "libvirt"]["text"] == "tcp failed"
    assert found["n2", "host-key"]["text"].count("SHA256:") == 2
    assert found["n3", "libvirt"]["status"] == "ok"
    assert found["n3", "migration"]["status"] == "skipped"


def test_a_libvirtd_that_hangs_costs_the_others_nothing(patient, lab):
    lab.nodes[1].hang("libvirtd")
    status, found = patient.seen("--timeout", "8s")
    assert status == 1
    assert failed_in(found) == {("n1", "libvirt")}
    assert "did not let us in" in found["n1", "libvirt"]["text"]
    assert found["n2", "migration to n1"]["status"] == "ok"


def test_an_export_server_that_is_down_is_missed_by_all(patient):
    patient.server.stop()
    status, found = patient.seen()
    assert status == 1
    assert failed_in(found) == {("nbd", "control")} | {(f"n{n}", "exports") for n in (1, 2, 3)}
    assert "refused" in found["n1", "exports"]["text"]
    assert skipped_of(found, "nbd") == {"version", "state", "overlays", "space", "exports opened"}


def test_an_export_server_that_forgets_is_found_out(lab, tmp_path, server):
    patient = Patient(lab, tmp_path, server)
    server.start("--overlay-dir", server.state)
    _, found = patient.seen("--node", "n1")
    assert failed_in(found) == {("nbd", "overlays")}
    assert f"--overlay-dir {server.overlays}" in found["nbd", "overlays"]["remedy"]


def test_a_network_that_is_nowhere_is_missed_on_each_node(patient):
    patient.write(network="bridge:vmbr7")
    status, found = patient.seen("--node", "n1", "--node", "n2")
    assert status == 1
    assert failed_in(found) == {("n1", "bridge vmbr7"), ("n2", "bridge vmbr7")}
    patient.write(network="network:default")
    _, found = patient.seen("--node", "n1")
    assert failed_in(found) == {("n1", "network default")}


def test_no_node_can_be_used(patient, lab):
    lab.nodes[1].stop("sshd")
    done = patient.run("--node", "n1")
    assert done.returncode == 2
    lines = done.stdout.splitlines()
    at = next(n for n, line in enumerate(lines) if line.split()[:2] == ["failed", "tcp"])
    assert "nothing listens on port 22" in lines[at]
    assert lines[at + 1].split(maxsplit=1) == [
        "->",
        "start sshd there: systemctl enable --now sshd",
    ]


def test_the_images_of_templates_are_looked_at_if_asked_for(patient, tmp_path):
    good = tmp_path / "good.img"
    good.write_bytes(bytes(1 << 20))
    patient.write(
        more=f'[templates.good]\nimage = "{good}"\n[templates.bad]\nimage = "{tmp_path}/none.img"\n'
    )
    _, found = patient.seen("--node", "n1")
    assert failed_in(found) == set()
    status, found = patient.seen("--node", "n1", "--images")
    assert status == 1
    assert failed_in(found) == {("template bad", f"{tmp_path}/none.img")}
    assert found["template good", str(good)]["status"] == "ok"


def test_emulation_is_a_failure_only_where_kvm_is_insisted_on(patient, lab):
    if lab.virt_type == "kvm":
        pytest.skip("the lab has a real KVM")
    patient.write(virt_type="auto")
    status, found = patient.seen("--node", "n1")
    assert (status, found["n1", "virt-type"]["status"]) == (0, "warning")
    patient.write(virt_type="kvm")
    status, found = patient.seen("--node", "n1")
    assert (status, failed_in(found)) == (1, {("n1", "virt-type")})


def test_a_kvm_that_looks_real_is_believed_only_if_a_guest_boots(patient, lab):
    """The node gets a module of Intel's and a /dev/kvm that everybody may open: a null device."""
    if lab.virt_type == "kvm":
        pytest.skip("the lab has a real KVM")
    patient.write(virt_type="kvm")
    lab.nodes[1].run(["sh", "-c", _PRETEND])
    try:
        status, found = patient.seen("--node", "n1")
    finally:
        lab.nodes[1].run(["sh", "-c", "rm /dev/kvm; umount /sys/module"])
    assert (status, failed_in(found)) == (1, {("n1", "virt-type")})
    assert "did not boot" in found["n1", "virt-type"]["text"]
    assert lab.nodes[1].domains() == set()
    assert found["nbd", "exports opened"]["status"] == "ok"
