"""Certificates on a node: each lack is told with its remedy; and what a server without TLS says."""

import dataclasses
import subprocess

import pytest

from certificates import Authority
from examined import NBD, by_name, exam_of
from minicloud.doctor.certificates import check_certificates
from minicloud.doctor.check import Status
from minicloud.doctor.tlsfiles import certificates_command, parse_certificates
from minicloud.doctor.tlstrial import Trial, try_tls
from nbdserve.protocol.handshake import ServerHandshake

TLS = dataclasses.replace(NBD, tls=True)
GOOD = Trial(version="TLSv1.3")


@pytest.fixture
def folder(tmp_path):
    Authority(tmp_path / "ca").issue(tmp_path / "pki", "client")
    (tmp_path / "pki/client-key.pem").chmod(0o640)
    return tmp_path / "pki"


def looked_at(folder, conf):
    """What the command says of a folder that a qemu.conf names."""
    shell, option, script = certificates_command()
    done = subprocess.run(
        [shell, option, script.replace("/etc/libvirt/qemu.conf", str(conf))],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return parse_certificates("Welcome!\n" + done.stdout)


def judged(folder, tmp_path, trial=GOOD):
    conf = tmp_path / "qemu.conf"
    conf.write_text(f'#nbd_tls_x509_cert_dir = "/no"\ndefault_tls_x509_cert_dir = "{folder}"\n')
    found = looked_at(folder, conf)
    assert found.folder == str(folder)
    return by_name(list(check_certificates(exam_of(certificates=found, tls=trial), TLS)))


def test_without_tls_nothing_is_looked_at():
    assert not list(check_certificates(exam_of(), NBD))
    assert not list(check_certificates(exam_of(), None))
    local = dataclasses.replace(TLS, socket="/run/nbd.sock")
    assert not list(check_certificates(exam_of(), local))


def test_the_folder_is_qemus_own_unless_libvirt_says_otherwise(tmp_path):
    conf = tmp_path / "qemu.conf"
    assert looked_at(None, conf).folder == "/etc/pki/qemu"
    conf.write_text('default_tls_x509_cert_dir = "/a"\n nbd_tls_x509_cert_dir = "/b"\n')
    assert looked_at(None, conf).folder == "/b"


def test_what_is_in_order(folder, tmp_path):
    found = judged(folder, tmp_path)
    assert {name: one.status for name, one in found.items()} == {
        "certificates": Status.OK, "tls": Status.OK,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "status"),
    [("ca-cert.pem", Status.FAILED), ("client-cert.pem", Status.FAILED),
     ("client-key.pem", Status.FAILED)],
)  # fmt: skip
def test_a_file_that_is_missing_is_named(folder, tmp_path, name, status):
    (folder / name).unlink()
    check = judged(folder, tmp_path)["certificates"]
    assert check.status is status
    assert f"there is no {folder}/{name}" in check.text


def test_without_the_authority_tls_is_not_tried(folder, tmp_path):
    (folder / "ca-cert.pem").unlink()
    assert judged(folder, tmp_path, None)["tls"].status is Status.SKIPPED


def test_a_node_may_have_no_certificate_of_its_own(folder, tmp_path):
    for name in ("client-cert.pem", "client-key.pem"):
        (folder / name).unlink()
    check = judged(folder, tmp_path)["certificates"]
    assert check.status is Status.WARNING
    assert "--tls-verify-peer" in check.remedy


def test_rubbish_is_told(folder, tmp_path):
    (folder / "client-cert.pem").write_text("rubbish\n")
    assert "is no certificate in PEM" in judged(folder, tmp_path)["certificates"].text


def test_a_certificate_that_ends_soon_is_a_warning(folder, tmp_path):
    Authority(tmp_path / "ca2").issue(folder, "client", lines=["expiration_days = 3"])
    (folder / "client-key.pem").chmod(0o640)
    assert "expires on" in judged(folder, tmp_path)["certificates"].text


def test_a_certificate_of_another_authority_is_a_warning(folder, tmp_path):
    Authority(tmp_path / "ca2", "another").issue(tmp_path / "other", "client")
    (tmp_path / "other/ca-cert.pem").replace(folder / "ca-cert.pem")
    assert "another authority" in judged(folder, tmp_path)["certificates"].text


def test_a_key_that_only_root_may_read_is_a_warning(folder, tmp_path):
    found = dataclasses.replace(looked_at(folder, tmp_path / "none"), key=(0o600, "root"))
    files = {name: (folder / name).read_text() for name in ("ca-cert.pem", "client-cert.pem")}
    found = dataclasses.replace(found, files=files)
    check = next(check_certificates(exam_of(certificates=found, tls=GOOD), TLS))
    assert "qemu is another user" in check.text


@pytest.mark.parametrize(
    ("problem", "remedy"),
    [(Trial.NO_TLS, "--tls-certificates"), (Trial.NAME, "nbd.lan"), (Trial.EXPIRED, "SIGHUP"),
     (Trial.UNTRUSTED, "the authority of nbdserve's"), (Trial.OTHER, "log")],
)  # fmt: skip
def test_what_is_wrong_with_the_server_has_its_remedy(folder, tmp_path, problem, remedy):
    check = judged(folder, tmp_path, Trial(problem=problem, text="so"))["tls"]
    assert check.status is Status.FAILED
    assert remedy in check.remedy


class Plain:
    """Both ends of a connection to a server that has no TLS."""

    def __init__(self):
        self.handshake = ServerHandshake()

    async def read(self, _most):
        return self.handshake.data_to_send()

    def write(self, data):
        self.handshake.receive_data(data)
        self.handshake.next_event()


async def test_a_server_without_tls_is_told_from_one_that_is_not_trusted():
    server = Plain()
    trial = await try_tls(server, server, TLS, "")
    assert trial.problem == Trial.NO_TLS
    assert "option 5 is not supported" in trial.text
