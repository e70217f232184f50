"""What ssh is called with; that it gets there is shown in tests/interop."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from minicloud.model.inventory import Node
from minicloud.ssh.openssh import guest_argv, jump_argv, node_argv, parse_known_hosts

UUID = "b71a78f6-6a6a-4329-b488-6d3e4cd88330"
NODE = Node(name="ham1", host="ham1.lan", user="op", port=2222, key=Path("/k ey"))


def guest(jump=("ssh", "-W", "[%h]:%p", "--", "ham1"), **given):
    defaults = {"address": "10.0.0.9", "uuid": UUID, "known_hosts": Path("/s/guests"),
                "ssh_config": None, "user": None}  # fmt: skip
    return guest_argv("ssh", jump, **(defaults | given))


def option(argv, name):
    """Return what the real ssh makes of our words."""
    told = subprocess.run(
        ["/usr/bin/ssh", "-G", *argv[1:]], capture_output=True, text=True, check=True
    ).stdout
    return next(line.split(" ", 1)[1] for line in told.splitlines() if line.startswith(name))


def test_a_node_is_reached_as_the_inventory_says():
    assert node_argv("ssh", NODE, Path("/c")) == [
        "ssh", "-F", "/c", "-l", "op", "-p", "2222", "-i", "/k ey",
    ]  # fmt: skip


def test_what_the_inventory_leaves_out_is_left_to_ssh():
    assert node_argv("ssh", Node(name="a", host="a"), None) == ["ssh"]


def test_the_users_known_hosts_are_read_off_ssh():
    assert parse_known_hosts("user me\nuserknownhostsfile ~/a ~/b\nport 22\n") == "~/a ~/b"
    assert parse_known_hosts("user me\n") == ""


def test_a_jump_believes_our_known_hosts_and_the_users():
    argv = jump_argv(["ssh"], NODE, ours=Path("/s t/own"), users="~/.ssh/known_hosts")
    assert 'UserKnownHostsFile="/s t/own" ~/.ssh/known_hosts' in argv
    assert "StrictHostKeyChecking=yes" in argv
    assert argv[-4:] == ["-W", "[%h]:%p", "--", "ham1.lan"]


def test_a_guest_is_known_by_its_uuid():
    argv = guest()
    assert f"HostKeyAlias=minicloud-{UUID}" in argv
    assert "UserKnownHostsFile=/s/guests" in argv
    assert argv[-2:] == ["--", "10.0.0.9"]


def test_a_shell_makes_the_jump_of_its_words_again(tmp_path):
    words = tmp_path / 'it\'s 100% $HOME; "x"'
    words.write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
    words.chmod(0o755)
    jump = [str(words), "-o", "a b", "-W", "[%h]:%p", "--", "-n*"]
    [proxy] = [word for word in guest(jump) if word.startswith("ProxyCommand=")]
    # ssh fills in its percent signs, then a shell splits
    line = proxy.partition("=")[2]
    given = {"%h": "10.0.0.9", "%p": "22", "%%": "%"}  # ssh refuses any other
    line = re.sub("%(.)", lambda found: given[found[0]], line)
    (tmp_path / "9:22").touch()  # which the brackets would match as a pattern
    shell = ["/bin/sh", "-c", line]
    got = subprocess.run(shell, cwd=tmp_path, capture_output=True, check=True).stdout
    assert got.decode().split("\0")[:-1] == ["-o", "a b", "-W", "[10.0.0.9]:22", "--", "-n*"]


def test_the_real_ssh_reads_our_words_as_they_are_meant():
    argv = guest(user="root", options=["Port=2200"])
    assert option(argv, "proxycommand ") == "ssh -W '[%h]:%p' -- ham1"
    assert option(argv, "hostname ") == "10.0.0.9"
    assert option(argv, "port ") == "2200"
    assert option(argv, "user ") == "root"
    assert option(argv, "stricthostkeychecking ") == "accept-new"


@pytest.mark.parametrize(
    ("command", "sent"),
    [
        ([], []),
        (["echo $HOME | wc"], ["echo $HOME | wc"]),
        (["echo", "a  b", "$HOME"], ["echo 'a  b' '$HOME'"]),
        (["-V"], ["-V"]),
    ],
)
def test_one_word_is_a_line_and_several_are_a_program_with_arguments(command, sent):
    argv = guest(command=command)
    assert argv[argv.index("--") + 2 :] == sent


def test_several_words_arrive_at_a_shell_as_they_were():
    words = ["printf", "%s|", "a  b", "it's", "$(id)"]
    [line] = guest(command=words)[-1:]
    assert shlex.split(line) == words
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout == "a  b|it's|$(id)|"


def test_a_terminal_and_the_configuration_are_passed_on():
    argv = guest(ssh_config=Path("/c"), wants_terminal=True)
    assert argv[1:3] == ["-F", "/c"]
    assert "-t" in argv
    assert os.fspath("/c") in argv
