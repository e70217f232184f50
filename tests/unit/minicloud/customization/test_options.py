"""Options, and the files they name."""

import io
import os

import pytest

from minicloud.customization.command import Command
from minicloud.customization.options import read_commands, registers, unregisters
from minicloud.errors import UsageError


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    files = {
        "pw": "hunter2\nnot this\n", "key.pub": "ssh-ed25519 AAAA me:here\n\n", "empty": "\n",
        "setup.sh": "#!/bin/sh\n", "pool": "8a85\n", "id": "-----BEGIN OPENSSH PRIVATE KEY-----\n",
    }  # fmt: skip
    for name, text in files.items():
        tmp_path.joinpath(name).write_text(text)
    return tmp_path


def test_each_option_is_a_command_and_secrets_are_content(home):
    assert read_commands(
        [
            ("hostname", "web1"),
            ("run", "setup.sh"),
            ("root-password", "file:~/pw"),
            ("password", "bob:locked:file:pw"),
            ("password", "eve:random"),
            ("ssh-inject", "root:file:key.pub"),
            ("ssh-inject", "bob:string:ssh-rsa BBBB x:y"),
            ("upload", "setup.sh:/opt/a:b"),
            ("sm-credentials", "me:file:pw"),
            ("sm-register", ""),
            ("sm-attach", "file:pool"),
            ("sm-attach", "auto"),
            ("write", "/etc/motd:one\ntwo"),
        ]
    ) == (
        Command("hostname", "web1"),
        Command("run", file=home / "setup.sh"),
        Command("root-password", "file:", b"hunter2\n"),
        Command("password", "bob:locked:file:", b"hunter2\n"),
        Command("password", "eve:random"),
        Command("ssh-inject", "root:file:", b"ssh-ed25519 AAAA me:here\n"),
        Command("ssh-inject", "bob:file:", b"ssh-rsa BBBB x:y\n"),
        Command("upload", file=home / "setup.sh", after=":/opt/a:b"),
        Command("sm-credentials", "me:file:", b"hunter2\n"),
        Command("sm-register"),
        Command("sm-attach", "pool:8a85"),
        Command("sm-attach", "auto"),
        Command("write", "/etc/motd:one\ntwo"),
    )


@pytest.mark.parametrize(
    ("option", "part"),
    [
        (("root-password", "password:hunter2"), "everybody on this machine sees it"),
        (("password", "bob:locked:password:hunter2"), "everybody on this machine sees it"),
        (("sm-credentials", "me:password:hunter2"), "everybody on this machine sees it"),
        (("root-password", "hunter2"), "a password stands in a file"),
        (("root-password", "file:empty"), "the password is empty"),
        (("root-password", "file:none"), "none cannot be read: No such file"),
        (("run", "none.sh"), "none.sh is not there"),
        (("upload", "none:/x"), "none is not there"),
        (("upload", "setup.sh"), "FILE:WHERE"),
        (("ssh-inject", "root:file:id"), "holds a private key"),
        (("ssh-inject", "root"), "no public key id\\*.pub in"),
        (("append-line", "/f:a\nb"), "takes one line"),
        (("hostname", ""), "takes a value"),
        (("sm-register", ""), "needs --sm-credentials"),
        (("sm-credentials", "me:file:pw"), "is for --sm-register"),
        (("commands-from-file", "none"), "none cannot be read"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_done(home, option, part):
    with pytest.raises(UsageError, match=part) as caught:
        read_commands([option])
    assert "hunter2" not in str(caught.value)


def test_a_password_on_the_command_line_is_taken_if_that_is_said(home):
    (command,) = read_commands([("root-password", "password:a:b")], may_be_seen=True)
    assert command == Command("root-password", "file:", b"a:b\n")


def test_a_password_may_come_from_standard_input(home, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("hunter2\nrest"))
    (command,) = read_commands([("root-password", "file:-")])
    assert command.file == b"hunter2\n"


def test_ones_own_newest_key_is_injected(home):
    folder = home / ".ssh"
    folder.mkdir()
    for age, name in enumerate(["id_new.pub", "id_old.pub", "id_new-cert.pub", "other.pub"]):
        path = folder / name
        path.write_text(f"ssh-ed25519 {name}\n")
        os.utime(path, (1000 - age, 1000 - age) if "cert" not in name else (5000, 5000))
    (command,) = read_commands([("ssh-inject", "root")])
    assert command == Command("ssh-inject", "root:file:", b"ssh-ed25519 id_new.pub\n")


def test_a_commands_file_is_read_as_virt_customize_does(home):
    folder = home / "there"
    folder.mkdir()
    folder.joinpath("first.sh").write_text("")
    folder.joinpath("all").write_text(
        "# a comment\n\nhostname web1\nrun first.sh\nwrite /f:a\\\n  b\n"
        "password bob:password:hunter2\nupdate"
    )
    assert read_commands([("commands-from-file", "there/all"), ("mkdir", "/x")]) == (
        Command("hostname", "web1"),
        Command("run", file=folder / "first.sh"),
        Command("write", "/f:a\n  b"),
        Command("password", "bob:file:", b"hunter2\n"),
        Command("update"),
        Command("mkdir", "/x"),
    )


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("update\n\ninstal nginx\n", "all: line 3: virt-customize has no 'instal'; did you mean"),
        ("write /f:a\\\nb\nrun\n", "line 3: run takes a value"),
        ("commands-from-file x", "cannot name another"),
    ],
)
def test_a_commands_file_that_is_wrong_is_told_by_its_line(home, text, part):
    home.joinpath("all").write_text(text)
    with pytest.raises(UsageError, match=part):
        read_commands([("commands-from-file", "all")])


@pytest.mark.parametrize(
    "options",
    [
        [("root-password", "random"), ("password", "root:file:pw")],
        [("password", "bob:random"), ("password", "bob:disabled")],
    ],
)
def test_a_password_is_set_once(home, options):
    with pytest.raises(UsageError, match="is set twice"):
        read_commands(options)


def test_whether_a_guest_stays_registered():
    register, give_back = Command("sm-register"), Command("sm-unregister")
    assert registers([register])
    assert not registers([give_back])
    assert not unregisters([register, Command("update")])
    assert unregisters([register, Command("update"), give_back])
    assert not unregisters([give_back, register])
