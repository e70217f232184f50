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


def doctored(*names):
    """What doctor says about TLS, by node and check."""
    told = minicloud("doctor", "--json")
    return {
        (one["subject"], one["check"]): one
        for one in told.document["checks"]
        if one["check"] in {"certificates", "tls"} and one["subject"] in names
    }


def test_doctor_finds_what_a_node_lacks(lab, certified, served, authority, tmp_path):
    first, second, third = certified
    (first.files.pki / "client-cert.pem").unlink()
    authority.issue(
        second.files.pki, "client",
        lines=[
            'activation_date = "2020-01-01 00:00:00"',
            'expiration_date = "2020-02-01 00:00:00"',
        ],
    )  # fmt: skip
    Authority(tmp_path / "stranger", "stranger").issue(third.files.pki, "client")

    found = doctored("n1", "n2", "n3")

    assert "there is no /etc/libvirt/pki/client-cert.pem" in found["n1", "certificates"]["text"]
    assert found["n1", "tls"]["status"] == "ok"
    assert "has expired on 2020-02-01" in found["n2", "certificates"]["text"]
    assert found["n3", "tls"]["status"] == "failed"
    assert "the authority of nbdserve's certificate" in found["n3", "tls"]["remedy"]


def test_doctor_finds_nodes_and_server_in_order_but_for_the_name(lab, certified, served, inventory):
    found = doctored("n1", "n2", "n3")
    assert {one["status"] for one in found.values()} == {"ok"}, found
    assert len(found) == 6
    text = inventory.read_text()
    inventory.write_text(text.replace("tls = true", 'tls = true\ntls-hostname = "other.lan"'))
    (tls,) = [one for (_, check), one in doctored("n1").items() if check == "tls"]
    assert "mismatch" in tls["text"]
    assert "a certificate with the name other.lan" in tls["remedy"]
    inventory.write_text(text.replace("tls = true", 'tls = true\ntls-hostname = "nbd.lan"'))
    assert doctored("n1")["n1", "tls"]["status"] == "ok"
