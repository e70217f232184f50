"""libvirt of a node: the socket, the way, the daemon, and what its version means."""

import pytest

from examined import abilities, by_name, exam_of
from minicloud.doctor.check import Status
from minicloud.doctor.daemon import check_daemon
from minicloud.errors import NodeError, Reason
from minicloud.hypervisor.sockets import SocketFacts, Sockets

HUNG = NodeError(Reason.LIBVIRT_HUNG, "it did not answer", "restart it")
REFUSED = NodeError(Reason.NO_FORWARDING, "no way", "some way")
SOCKET = "/run/libvirt/libvirt-sock"


def judged(**found):
    return by_name(list(check_daemon(exam_of(**found))))


def sockets(*tools, exists=True, is_allowed=True, is_listening=True):
    socket = SocketFacts(SOCKET, exists, is_allowed, is_listening)
    return Sockets((socket,), frozenset(tools), "ruth")


def test_what_works_is_told():
    found = judged()
    assert {check.status for check in found.values()} == {Status.OK}
    assert found["libvirt"].text == "10.0.0, of ham1"
    assert list(found) == ["socket", "forwarding", "libvirt", "qemu", "reconnect"]


@pytest.mark.parametrize(
    ("facts", "words", "remedy"),
    [
        ({"exists": False, "is_allowed": False, "is_listening": False}, "there is no", "systemctl"),
        ({"is_listening": False}, "nothing listens", "systemctl"),
        ({"is_allowed": False}, "user ruth may not", "usermod -aG libvirt ruth"),
    ],
)
def test_a_socket_that_cannot_be_used_stops_what_rests_on_it(facts, words, remedy):
    found = judged(opened="", sockets=sockets(**facts), abilities=REFUSED)
    assert found["socket"].status is Status.FAILED
    assert words in found["socket"].text
    assert remedy in found["socket"].remedy
    assert {check.status for name, check in found.items() if name != "socket"} == {Status.SKIPPED}
    assert found["libvirt"].text == "socket failed"


def test_forbidden_forwarding_is_survived_with_a_helper():
    found = judged(opened="", sockets=sockets("nc", "virt-ssh-helper"))
    assert found["socket"].status is Status.OK
    assert found["forwarding"].status is Status.WARNING
    assert "virt-ssh-helper is used" in found["forwarding"].text
    assert found["libvirt"].status is Status.OK


def test_forbidden_forwarding_without_a_helper_is_the_end_of_the_way():
    found = judged(opened="", sockets=sockets("virsh"), abilities=REFUSED)
    assert found["forwarding"].status is Status.FAILED
    assert "AllowStreamLocalForwarding yes" in found["forwarding"].remedy
    assert found["libvirt"].text == "forwarding failed"


def test_libvirt_that_hangs_behind_an_open_socket_has_failed_itself():
    found = judged(abilities=HUNG)
    assert found["socket"].status is Status.OK
    assert (found["libvirt"].text, found["libvirt"].remedy) == ("it did not answer", "restart it")
    assert found["qemu"].status is Status.SKIPPED


def test_a_node_without_an_emulator_runs_no_guest():
    found = judged(abilities=abilities(qemu=None, reconnects=None))
    assert found["qemu"].status is Status.FAILED
    assert found["reconnect"].status is Status.SKIPPED


@pytest.mark.parametrize(
    ("reconnects", "words"),
    [(False, "libvirt 10.0.0 drops <reconnect>"), (None, "does not say")],
)
def test_guests_that_do_not_wait_for_their_disk_are_warned_of(reconnects, words):
    found = judged(abilities=abilities(reconnects=reconnects))
    assert found["reconnect"].status is Status.WARNING
    assert words in found["reconnect"].text
