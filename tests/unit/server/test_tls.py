"""Credentials: each thing that can be wrong with them is one line with the remedy."""

import logging
import shutil
import ssl
import sys

import pytest

from certificates import Authority
from nbdserve.errors import ConfigError
from nbdserve.server.tls import Tls, shake_hands
from nbdserve.settings import TlsMode, TlsSettings


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pki")
    authority = Authority(folder / "ca")
    authority.issue(folder / "good", "server")
    authority.issue(folder / "other", "server")
    authority.issue(
        folder / "expired", "server",
        lines=[
            'activation_date = "2020-01-01 00:00:00"',
            'expiration_date = "2020-02-01 00:00:00"',
        ],
    )  # fmt: skip
    authority.issue(folder / "client", "client")
    Authority(folder / "stranger", "stranger")
    return folder


@pytest.fixture
def folder(pki, tmp_path):
    """A good folder, to be spoilt."""
    return shutil.copytree(pki / "good", tmp_path / "tls")


def client_context(pki):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(pki / "ca/ca-cert.pem")
    return context


def test_without_credentials_tls_is_off():
    assert Tls.open(TlsSettings()) is None
    assert Tls.open(TlsSettings(TlsMode.OFF, certificates="/no/such/folder")) is None


def test_credentials_alone_offer_tls_and_require_makes_it_a_must(folder):
    for mode, required in ((None, False), (TlsMode.ON, False), (TlsMode.REQUIRE, True)):
        tls = Tls.open(TlsSettings(mode, folder))
        assert tls is not None
        assert tls.is_required is required


@pytest.mark.parametrize("mode", [TlsMode.ON, TlsMode.REQUIRE])
def test_tls_without_credentials_names_the_options(mode):
    with pytest.raises(ConfigError, match=f"--tls={mode} needs --tls-certificates DIR"):
        Tls.open(TlsSettings(mode))
    with pytest.raises(ConfigError, match="needs --tls-certificates"):
        Tls.open(TlsSettings(verify_peer=True))


@pytest.mark.parametrize("name", ["server-cert.pem", "server-key.pem", "ca-cert.pem"])
def test_a_file_that_is_missing_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ConfigError, match=f"{name}: No such file or directory; make it with"):
        Tls.open(TlsSettings(None, folder, verify_peer=True))


def test_without_verify_peer_the_authority_is_not_needed(folder):
    (folder / "ca-cert.pem").unlink()
    assert Tls.open(TlsSettings(None, folder)) is not None


def test_the_key_of_another_certificate_is_told(pki, folder):
    shutil.copy(pki / "other/server-key.pem", folder)
    with pytest.raises(ConfigError, match=r"server-key.pem is not the key of .*server-cert.pem"):
        Tls.open(TlsSettings(None, folder))


@pytest.mark.parametrize("name", ["server-cert.pem", "server-key.pem", "ca-cert.pem"])
def test_rubbish_is_told(folder, name):
    (folder / name).write_text("rubbish")
    with pytest.raises(ConfigError, match=r"in PEM: "):
        Tls.open(TlsSettings(None, folder))


@pytest.mark.parametrize(
    ("kind", "text"), [("expired", "has expired"), ("stranger", "vouches for")]
)
def test_what_clients_will_refuse_is_a_warning(pki, folder, caplog, kind, text):
    if kind == "expired":
        shutil.copytree(pki / kind, folder, dirs_exist_ok=True)
    else:
        shutil.copy(pki / "stranger/ca-cert.pem", folder)
    with caplog.at_level(logging.WARNING):
        assert Tls.open(TlsSettings(None, folder)) is not None
    (record,) = caplog.records
    assert text in record.getMessage()


def test_a_good_folder_warns_of_nothing(folder, caplog):
    Tls.open(TlsSettings(None, folder, verify_peer=True))
    assert not caplog.records


def test_verify_peer_lets_in_only_who_has_a_certificate(pki, folder):
    context = Tls.open(TlsSettings(None, folder, verify_peer=True)).context
    client = client_context(pki)
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        shake_hands(client, context)
    client.load_cert_chain(pki / "client/client-cert.pem", pki / "client/client-key.pem")
    shake_hands(client, context)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_versions_before_1_2_are_refused(pki, folder):
    client = client_context(pki)
    client.set_ciphers("ALL:@SECLEVEL=0")
    client.minimum_version = ssl.TLSVersion.TLSv1
    client.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        shake_hands(client, Tls.open(TlsSettings(None, folder)).context)


def test_a_reload_takes_what_is_new_and_keeps_what_was_if_it_is_broken(pki, folder, caplog):
    tls = Tls.open(TlsSettings(None, folder))
    first = tls.context
    shutil.copy(pki / "other/server-key.pem", folder)
    with caplog.at_level(logging.INFO):
        tls.reload()
        assert tls.context is first
        assert "those in use stay: TLS: " in caplog.text
        shutil.copy(pki / "other/server-cert.pem", folder)
        tls.reload()
    assert tls.context is not first
    assert "TLS credentials read anew" in caplog.text


def test_one_kind_of_credentials_is_enough(folder, tmp_path):
    with pytest.raises(ConfigError, match="only one kind"):
        Tls.open(TlsSettings(None, folder, psk=tmp_path / "psk"))


def test_keys_need_a_python_whose_ssl_has_them(tmp_path):
    keys = tmp_path / "psk"
    keys.write_text("alice:" + "0a" * 32 + "\n")
    if sys.version_info >= (3, 13):
        assert Tls.open(TlsSettings(psk=keys)) is not None
        return
    with pytest.raises(ConfigError, match=r"Python 3.13 or newer; use --tls-certificates"):
        Tls.open(TlsSettings(psk=keys))


@pytest.mark.parametrize(
    "text", ["alice", "alice:xyz", ":" + "0a" * 32, "alice:0a0b", "", "# no\n"]
)
def test_a_file_without_good_keys_is_told(tmp_path, text):
    keys = tmp_path / "psk"
    keys.write_text(text)
    with pytest.raises(ConfigError, match="psktool -u NAME"):
        Tls.open(TlsSettings(psk=keys))
