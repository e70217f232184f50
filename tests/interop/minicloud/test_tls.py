"""Guests whose disks come over TLS, and whose memory moves over it: on real nodes."""

import pytest

from certificates import Authority
from guest import MARKER
from minicloud_command import minicloud
from movedguests import succeed
from waiting import eventually


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "ca")


@pytest.fixture
def certified(lab, authority):
    """The nodes, each with a client's and a server's certificate for its guests' qemu."""
    nodes = [lab.nodes[number] for number in (1, 2, 3)]
    for node in nodes:
        for kind in ("client", "server"):
            authority.issue(node.files.pki, kind, names=[node.name], addresses=[node.address])
        node.files.let_guests_read_keys()
    yield nodes
    for node in nodes:
        for path in node.files.pki.iterdir():
            path.unlink()


@pytest.fixture
def served(inventory, export_server, authority, tmp_path):
    """The export server, which lets in nobody without a certificate; [nbd] says so."""
    folder = authority.issue(
        tmp_path / "server", "server", names=["nbd.lan"], addresses=[export_server.address]
    )
    export_server.stop()
    daemon = export_server.start("--tls=require", "--tls-certificates", folder, "--tls-verify-peer")
    inventory.write_text(inventory.read_text().replace("[nbd]\n", "[nbd]\ntls = true\n"))
    return daemon


def test_a_guest_boots_over_tls_and_takes_its_memory_along_by_tls(lab, certified, served, tmp_path):
    words = tmp_path / "user-data"
    words.write_text("#cloud-config\n# guest.verify\n")
    told = minicloud("boot", "tiny", "n1:web1", "--cloud-init", words, f"--wait=console:{MARKER}")
    assert told.status == 0, told
    assert "version=TLSv1.3" in served.log

    before = served.log.count("TLS started")
    succeed("migrate", "web1", "n2", "--tls")
    assert served.log.count("TLS started") > before
    second = lab.nodes[2]
    log = second.files.log / "qemu/web1-console.log"
    eventually(lambda: log.read_text(errors="replace").count("GUEST-OK") > 1, within=60)
    assert minicloud("destroy", "web1").status == 0


def test_memory_does_not_move_by_tls_to_a_node_without_certificates(
    lab, certified, served, tmp_path
):
    words = tmp_path / "user-data"
    words.write_text("#cloud-config\n# guest.stay\n")
    told = minicloud("boot", "tiny", "n1:web1", "--cloud-init", words, f"--wait=console:{MARKER}")
    assert told.status == 0, told
    (lab.nodes[2].files.pki / "server-cert.pem").unlink()

    refused = minicloud("migrate", "web1", "n2", "--tls")

    assert refused.status == 2, refused
    assert "/etc/libvirt/pki/server-cert.pem: No such file" in refused.err
    assert "web1 still runs on n1" in refused.err
    assert set(lab.nodes[1].domains()) == {"web1"}


def test_a_guest_on_a_node_without_certificates_is_not_made(lab, certified, served):
    (lab.nodes[1].files.pki / "ca-cert.pem").unlink()
    told = minicloud("boot", "tiny", "n1:web1")
    assert told.status == 2
    assert "/etc/libvirt/pki/ca-cert.pem" in told.err
