"""What a node says of libvirt's sockets, and what follows from it."""

import subprocess

import pytest

from minicloud.errors import Reason
from minicloud.hypervisor.sockets import (
    SocketFacts,
    Sockets,
    candidates,
    helper_command,
    inspection,
    parse_sockets,
)

READY = SocketFacts("/s", exists=True, is_allowed=True, is_listening=True)
FORBIDDEN = SocketFacts("/s", exists=True, is_allowed=False, is_listening=True)
STALE = SocketFacts("/s", exists=True, is_allowed=True, is_listening=False)
MISSING = SocketFacts("/s", exists=False, is_allowed=False, is_listening=False)


def facts(*sockets, tools=()):
    return Sockets(sockets, frozenset(tools), "ruth")


def test_what_is_printed_is_read_and_greetings_are_passed_over():
    text = "Welcome to ham1\nsocket yes no yes /run/a b\ntool socat\nuser ruth\n"
    assert parse_sockets(text) == Sockets(
        (SocketFacts("/run/a b", exists=True, is_allowed=False, is_listening=True),),
        frozenset({"socat"}),
        "ruth",
    )


def test_the_command_finds_a_socket_that_is_missing(tmp_path):
    paths = [str(tmp_path / "no"), str(tmp_path / "a b")]
    printed = subprocess.run(inspection(paths), capture_output=True, text=True, check=True)
    assert [s.exists for s in parse_sockets(printed.stdout).sockets] == [False, False]
    assert printed.stderr == ""


@pytest.mark.parametrize(
    ("sockets", "reason"),
    [
        ((MISSING, MISSING), Reason.NO_LIBVIRTD),
        ((MISSING, STALE), Reason.NO_LIBVIRTD),
        ((STALE, FORBIDDEN), Reason.LIBVIRT_PERMISSION),
        ((FORBIDDEN, READY), Reason.NO_FORWARDING),
    ],
)
def test_why_no_socket_can_be_used(sockets, reason):
    assert facts(*sockets).error().reason is reason


@pytest.mark.parametrize(
    ("tools", "is_configured", "command"),
    [
        ({"virt-ssh-helper", "socat"}, False, ["virt-ssh-helper", "qemu:///system"]),
        ({"virt-ssh-helper", "socat", "nc"}, True, ["socat", "-", "UNIX-CONNECT:/s"]),
        ({"nc"}, False, ["nc", "-U", "/s"]),
        ({"virt-ssh-helper"}, True, None),
        (set(), False, None),
    ],
)
def test_the_helper_that_is_used(tools, is_configured, command):
    made = helper_command(facts(READY, tools=tools), "qemu:///system", is_configured=is_configured)
    assert made == command


def test_no_helper_is_begun_for_a_libvirtd_that_is_down():
    assert helper_command(facts(STALE, tools={"nc"}), "qemu:///system", is_configured=False) is None


def test_the_modular_daemon_is_tried_first_unless_the_operator_named_a_socket():
    assert candidates(None)[0].endswith("virtqemud-sock")
    assert candidates("/run/x") == ("/run/x",)
