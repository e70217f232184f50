"""Known host keys: files, lines, patterns, markers."""

import asyncssh
import pytest

from minicloud.errors import NodeError, Reason, UsageError
from minicloud.ssh.hostkeys import HostKeys, Policy
from sshnodes import key


def public(name):
    return key(name).convert_to_public()


def line(hosts, name="host", marker=""):
    words = key(name).export_public_key().decode().split()
    return f"{marker} {hosts} {words[0]} {words[1]}\n".lstrip()


def hashed(host):
    """Write a host as `HashKnownHosts yes` does."""
    import base64
    import hashlib
    import hmac

    salt = b"0123456789abcdef0123"
    digest = hmac.new(salt, host.encode(), hashlib.sha1).digest()
    return "|1|" + "|".join(base64.b64encode(part).decode() for part in (salt, digest))


@pytest.fixture
def keys(tmp_path):
    return HostKeys(tmp_path / "own")


@pytest.fixture
def users(tmp_path):
    return tmp_path / "users"


@pytest.mark.parametrize(
    ("hosts", "host", "port"),
    [
        ("ham1", "ham1", 22),
        ("x,ham1,10.0.0.1", "10.0.0.1", 22),
        ("HAM1", "ham1", 22),
        ("ham*", "ham1", 22),
        ("ham?,!ham2", "ham1", 22),
        ("[ham1]:2222", "ham1", 2222),
        ("ham1", "ham1", 2222),
        ("[fe80::1]:2222", "fe80::1", 2222),
        (hashed("ham1"), "ham1", 22),
        (hashed("[ham1]:2222"), "ham1", 2222),
    ],
)
def test_a_key_is_known_by(keys, users, hosts, host, port):
    users.write_text("\n# nothing\nnonsense\n" + line(hosts))
    known = keys.known(host, port, [str(users)])
    assert [(one.key, one.file, one.line) for one in known] == [(public("host"), users, 4)]
    keys.judge(public("host"), host, port, known)


@pytest.mark.parametrize("hosts", ["ham", "ham10", "!ham1,ham*", "[ham1]:2222", hashed("ham2")])
def test_a_key_of_another_host_is_not_known(keys, users, hosts):
    users.write_text(line(hosts))
    assert keys.known("ham1", 22, [str(users)]) == []


def test_a_line_that_makes_no_sense_hides_no_other(keys, users):
    users.write_text("ham1 ssh-ed25519 AAAA\n|1|x ssh-rsa y\n@odd ham1 a b\n" + line("ham1"))
    assert [one.line for one in keys.known("ham1", 22, [str(users)])] == [4]


def test_files_that_are_missing_know_nothing(keys, users):
    assert keys.known("ham1", 22, [str(users), "~/no such file"]) == []


def test_a_key_of_another_port_is_no_reason_to_call_a_key_changed(keys, users):
    users.write_text(line("ham1", "another"))
    keys.judge(public("host"), "ham1", 2222, keys.known("ham1", 2222, [str(users)]))


def test_a_key_of_another_type_is_a_changed_key(keys, users):
    users.write_text(line("ham1"))
    shown = asyncssh.generate_private_key("ecdsa-sha2-nistp256").convert_to_public()
    with pytest.raises(NodeError) as caught:
        keys.judge(shown, "ham1", 22, keys.known("ham1", 22, [str(users)]))
    assert caught.value.reason is Reason.KEY_CHANGED
    assert "ecdsa-sha2-nistp256" in caught.value.message


def test_one_of_several_known_keys_is_enough(keys, users):
    users.write_text(line("ham1", "another") + line("ham1"))
    keys.judge(public("host"), "ham1", 22, keys.known("ham1", 22, [str(users)]))


def test_a_revoked_key_is_refused_even_if_it_is_known(keys, users):
    users.write_text(line("ham1") + line("*", marker="@revoked"))
    with pytest.raises(NodeError, match=r"revoked by .*users:2"):
        keys.judge(public("host"), "ham1", 22, keys.known("ham1", 22, [str(users)]))


def test_a_key_that_is_accepted_is_written_once_and_then_known(keys):
    for _ in range(2):
        keys.accept(public("host"), "ham1", 22)
    assert keys.own.read_text() == line("ham1")
    assert [one.key for one in keys.known("ham1", 22, [])] == [public("host")]


def test_a_last_line_without_an_end_is_not_written_into(keys):
    keys.own.write_text(line("ham2", "another").rstrip())
    keys.accept(public("host"), "ham1", 22)
    assert [one.key for one in keys.known("ham1", 22, [])] == [public("host")]


def test_the_environment_names_file_and_policy(tmp_path):
    keys = HostKeys.of_environment(
        {"MINICLOUD_KNOWN_HOSTS": str(tmp_path / "k"), "MINICLOUD_HOST_KEYS": "strict"}
    )
    assert (keys.own, keys.policy) == (tmp_path / "k", Policy.STRICT)
    assert HostKeys.of_environment({}).policy is Policy.ACCEPT_NEW
    with pytest.raises(UsageError, match="accept-new or strict"):
        HostKeys.of_environment({"MINICLOUD_HOST_KEYS": "ask"})
