"""Every reason why a guest cannot move, and what is said about it."""

from dataclasses import replace

import pytest

from minicloud.model.guest import GuestState
from minicloud.moving.checks import Source, Target, check_leaving, check_migration, check_target
from minicloud.moving.definition import Definition, DiskPlace, DiskSource
from minicloud.moving.finding import Level, problems
from minicloud.moving.probe import Probe, Reach

DISK = DiskSource(
    target="vda", place=DiskPlace.NBD, where="10.0.0.1:10809/guest/web1", host="10.0.0.1",
    export="guest/web1",
)  # fmt: skip
GUEST = Definition(
    name="web1", uuid="u1", memory=2 << 30, virt_type="kvm", arch="x86_64", machine="pc-q35-7.2",
    emulator="/usr/bin/qemu", cpu="<cpu mode='custom'/>", cpu_mode="custom", disks=(DISK,),
    networks=("default",), bridges=("br0",), files=("/boot/vmlinuz",),
)  # fmt: skip
SOURCE = Source(
    node="ham1", definition=GUEST, state=GuestState.RUNNING, libvirt=(9, 0, 0), qemu=(7, 2, 0),
    port=Reach.REFUSED,
)  # fmt: skip
PROBE = Probe(
    addresses={("10.0.0.1", 10809): Reach.OPEN}, bridges={"br0": True},
    files={"/boot/vmlinuz": True},
)  # fmt: skip
TARGET = Target(
    node="ham2", address="ham2.lan", libvirt=(9, 0, 0), qemu=(7, 2, 0), guests={"other": "u2"},
    active=frozenset({"other"}), free=4 << 30, networks=frozenset({"default"}), probe=PROBE,
)  # fmt: skip


def guest(**changes):
    return replace(SOURCE, definition=replace(GUEST, **changes))


def target(**changes):
    return replace(TARGET, **changes)


def probed(**changes):
    return target(probe=replace(PROBE, **changes))


def only_problem(source, end):
    (found,) = problems(check_migration(source, end))
    return found


def test_a_guest_that_can_move_has_only_good_findings():
    findings = check_migration(SOURCE, TARGET)

    assert {one.level for one in findings} == {Level.OK}
    assert [one.topic for one in findings] == [
        "state", "versions", "port", "name", "machine", "cpu", "memory", "disk vda", "network",
        "network", "file",
    ]  # fmt: skip


PROBLEMS = [
    (replace(SOURCE, state=GuestState.PAUSED, reason="I/O error"), TARGET, "paused (I/O error)"),
    (SOURCE, target(qemu=(7, 1, 9)), "qemu 7.1.9 of ham2 is older than 7.2.0 of ham1"),
    (SOURCE, target(libvirt=(8, 10, 0)), "libvirt 8.10.0 of ham2 is older than 9.0.0"),
    (SOURCE, target(qemu=None), "ham2 has no qemu"),
    (replace(SOURCE, port=Reach.SILENT), TARGET, "ham1 cannot reach ham2.lan:49152: no answer"),
    (replace(SOURCE, port=Reach.NO_ROUTE), TARGET, "ham2.lan:49152: no route"),
    (replace(SOURCE, port=Reach.NO_NAME), TARGET, "ham2.lan:49152: unknown name"),
    (SOURCE, target(guests={"web1": "u9"}), "ham2 has another guest web1"),
    (
        SOURCE,
        target(guests={"web1": "u1"}, active=frozenset({"web1"})),
        "a guest web1 runs on ham2 already",
    ),
    (SOURCE, target(machine_error="no such machine"), "cannot run kvm pc-q35-7.2: no such"),
    (SOURCE, target(cpu_error="missing features: avx2"), "missing features: avx2"),
    (SOURCE, target(free=1 << 30), "it needs 2048 MiB, ham2 has 1024 MiB free"),
    (SOURCE, target(free=-1 << 30), "ham2 has 0 MiB free"),
    (
        guest(disks=(DiskSource(target="sda", place=DiskPlace.LOCAL, where="/x.raw"),)),
        TARGET,
        "its disk /x.raw is on its own node",
    ),
    (
        guest(disks=(DiskSource(target="sda", place=DiskPlace.NBD_SOCKET, where="/s"),)),
        TARGET,
        "served at /s, a Unix socket of its own node",
    ),
    (guest(disks=(replace(DISK, host="127.0.0.1"),)), TARGET, "another machine on every node"),
    (
        SOURCE,
        probed(addresses={("10.0.0.1", 10809): Reach.REFUSED}),
        "ham2 cannot reach the export server at 10.0.0.1:10809: refused",
    ),
    (SOURCE, target(networks=frozenset()), "ham2 has no active network default"),
    (SOURCE, probed(bridges={"br0": False}), "ham2 has no bridge br0"),
    (SOURCE, probed(files={"/boot/vmlinuz": False}), "ham2 has no /boot/vmlinuz"),
    (guest(passed=("pci 06:02:0",)), TARGET, "the device pci 06:02:0 of its node to itself"),
]


@pytest.mark.parametrize(("source", "end", "text"), PROBLEMS, ids=[text for *_, text in PROBLEMS])
def test_a_problem_is_found_alone_with_what_to_do(source, end, text):
    found = only_problem(source, end)

    assert text in found.text
    assert found.remedy
    assert "\n" not in str(found)


WARNINGS = [
    (guest(cpu_mode="host-passthrough"), TARGET, "the host's own"),
    (SOURCE, target(guests={"web1": "u1"}), "its old definition on ham2 is replaced"),
    (replace(SOURCE, port=Reach.UNKNOWN), TARGET, "no bash, python3 or nc"),
    (SOURCE, probed(addresses={}), "no bash, python3 or nc"),
    (SOURCE, probed(bridges={}), "did not say whether it has the bridge"),
    (SOURCE, probed(files={}), "did not say whether it has /boot"),
    (
        guest(disks=(DiskSource(target="sda", place=DiskPlace.NETWORK, where="rbd:x"),)),
        TARGET,
        "rbd:x is not tried",
    ),
]


@pytest.mark.parametrize(("source", "end", "text"), WARNINGS, ids=[text for *_, text in WARNINGS])
def test_what_cannot_be_known_is_a_warning_and_no_problem(source, end, text):
    findings = check_migration(source, end)

    (found,) = [one for one in findings if one.level is not Level.OK]
    assert found.level is Level.WARNING
    assert text in found.text


def test_a_newer_target_is_fine():
    assert not problems(check_migration(SOURCE, target(qemu=(8, 0, 0), libvirt=(10, 0, 0))))


def test_a_guest_that_is_off_needs_no_port_and_no_memory():
    off = replace(SOURCE, state=GuestState.SHUTOFF, is_active=False, port=Reach.UNKNOWN)

    findings = check_migration(off, target(free=0))

    assert not problems(findings)
    assert {"port", "memory"}.isdisjoint(one.topic for one in findings)


def test_what_ties_a_guest_to_its_node_is_known_without_a_target():
    tied = guest(disks=(DiskSource(target="sda", place=DiskPlace.LOCAL, where="/x.raw"),))

    assert [one.topic for one in problems(check_leaving(tied))] == ["disk sda"]
    assert not problems(check_leaving(SOURCE))


def test_a_target_is_checked_alone_for_a_guest_whose_node_is_dead():
    topics = [one.topic for one in check_target(GUEST, TARGET)]

    assert topics[0] == "name"
    assert "memory" in topics
    assert "port" not in topics
