"""The options of virt-customize in a template."""

from pathlib import Path

import pytest

from minicloud.inventory.customize import CUSTOMIZE, with_paths


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("install nginx,curl", ("install", "nginx,curl")),
        ("--run-command  systemctl enable nginx ", ("run-command", "systemctl enable nginx")),
        ("update", ("update", "")),
        ("root-password locked:file:r", ("root-password", "locked:file:r")),
        ("root-password random", ("root-password", "random")),
        ("password bob:file:p", ("password", "bob:file:p")),
        ("password bob:disabled", ("password", "bob:disabled")),
        ("ssh-inject root", ("ssh-inject", "root")),
        ("ssh-inject root:string:ssh-rsa AA me", ("ssh-inject", "root:string:ssh-rsa AA me")),
        ("sm-credentials me:file:c", ("sm-credentials", "me:file:c")),
        ("sm-attach pool:1", ("sm-attach", "pool:1")),
        ("upload a:/etc/a", ("upload", "a:/etc/a")),
    ],
)  # fmt: skip
def test_an_option_is_a_word_and_its_value(text, option):
    assert CUSTOMIZE.parse(text) == option
    assert CUSTOMIZE.parse(CUSTOMIZE.show(option)) == option


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "an option"),
        (3, "an option"),
        ("install", "takes a value"),
        ("update now", "takes no value"),
        ("run-command a\nb", "takes one line"),
        ("upload a", "FILE:WHERE"),
        ("upload :/etc/a", "FILE:WHERE"),
        ("root-password hunter2", "a password stands in a file"),
        ("root-password file:", "a password stands in a file"),
        ("password bob:password:x", "a password stands in a file"),
        ("sm-credentials me:password:x", "USER:file:FILE"),
        ("sm-attach 1", "auto, pool:ID or file:FILE"),
        ("ssh-inject :file:x", "USER:file:FILE"),
        ("ssh-inject root:x", "USER:file:FILE"),
        ("selinux", "did you mean 'no-selinux-relabel'?"),
    ],
)
def test_what_is_no_option_is_told(text, part):
    with pytest.raises(ValueError, match=part):
        CUSTOMIZE.parse(text)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        (("run", "setup.sh"), "/inv/setup.sh"),
        (("run", "/setup.sh"), "/setup.sh"),
        (("run", "~/setup.sh"), "/me/setup.sh"),
        (("upload", "a:b:/etc/a"), "/inv/a:b:/etc/a"),
        (("password", "bob:locked:file:p"), "bob:locked:file:/inv/p"),
        (("password", "bob:random"), "bob:random"),
        (("ssh-inject", "root:string:file:x"), "root:string:file:x"),
        (("sm-attach", "file:p"), "file:/inv/p"),
        (("sm-attach", "pool:p"), "pool:p"),
        (("write", "/etc/motd:file:x"), "/etc/motd:file:x"),
    ],
)
def test_a_path_is_taken_from_where_the_inventory_is(option, value, monkeypatch):
    monkeypatch.setenv("HOME", "/me")
    assert with_paths(option, Path("/inv")) == (option[0], value)
