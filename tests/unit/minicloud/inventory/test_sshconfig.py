"""A first inventory of an ssh_config: which hosts are found, and that the reader takes it."""

import pytest

from minicloud.errors import UsageError
from minicloud.inventory.reading import read_inventory
from minicloud.inventory.sshconfig import hosts_of, inventory_from_ssh_config

CONFIG = """\
# Host nobody
Host ham0 ham1 !ham9
    HostName 10.0.0.1
host = "ham2"
HOST=ham3
Host =ham4 # a comment
Host ham* *.lan ?am
Match host ham7
Include config.d/*.conf
Include "with space" /no/such/file
Host "unfinished
Host ham.lan fe80::1 ham0
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Write an ssh_config of one's own; what it includes lies in ~/.ssh."""
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "config"
    path.write_text(CONFIG)
    parts = tmp_path / ".ssh" / "config.d"
    (parts / "folder.conf").mkdir(parents=True)
    (parts / "b.conf").write_text("Host b1\nInclude config.d/b.conf\n")
    (parts / "a.conf").write_text("Host a1\n")
    (parts / "a.off").write_text("Host off\n")
    (tmp_path / ".ssh" / "with space").write_text("Host spaced\n")
    return path


def test_hosts_are_found_in_order_and_once(config):
    assert hosts_of(config) == [
        "ham0", "ham1", "ham2", "ham3", "ham4", "a1", "b1", "spaced", "ham.lan", "fe80::1",
    ]  # fmt: skip


def test_those_that_match_become_nodes(config, tmp_path):
    text = inventory_from_ssh_config("ham?", config)
    file = tmp_path / "minicloud.toml"
    file.write_text(text)
    nodes = read_inventory(file).nodes
    assert {name: node.host for name, node in nodes.items()} == {
        f"ham{number}": f"ham{number}" for number in range(5)
    }
    assert str(config) in text


def test_what_is_commented_out_is_read_when_it_is_not(config, tmp_path):
    text = inventory_from_ssh_config("*", config)
    file = tmp_path / "minicloud.toml"
    rest = (
        text[text.index("[nodes") :]
        .replace("\n# [", "\n[")
        .replace("\n# ", "\n")
        .replace("…", "0" * 128)
    )
    file.write_text(rest.replace("Where nbdserve", "# Where"))
    inventory = read_inventory(file)
    assert inventory.nbd.ssh is inventory.nodes["ham0"]
    assert inventory.nodes["fe80--1"].host == "fe80::1"
    assert inventory.nodes["ham.lan"].host == "ham.lan"
    assert inventory.templates["debian"].memory == 2 << 30


def test_none_that_matches_tells_which_there_are(config):
    with pytest.raises(UsageError, match=r"config: no host in it matches 'bacon\*'; .*ham0"):
        inventory_from_ssh_config("bacon*", config)


def test_the_users_own_is_read_when_none_is_named(config, tmp_path):
    with pytest.raises(UsageError, match="config: cannot be read: No such file"):
        inventory_from_ssh_config("*", None)
    (tmp_path / ".ssh" / "config").write_text("Include ~/config\nInclude other")
    (tmp_path / ".ssh" / "other").write_text("Host other")
    text = inventory_from_ssh_config("*", None)
    assert "[nodes.other]" in text
    assert "[nodes.ham1]" in text
    assert "# The hosts of ~/.ssh/config that match *." in text
