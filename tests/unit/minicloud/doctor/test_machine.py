"""KVM's traps, memory, processors and the clock of a node."""

import dataclasses

import pytest

from examined import SURVEY, abilities, by_name, exam_of
from minicloud.doctor.check import Status
from minicloud.doctor.exam import Clock
from minicloud.doctor.machine import check_machine
from minicloud.doctor.survey import KvmDevice
from minicloud.errors import NodeError, Reason, StorageError
from minicloud.model.guest import Guest, GuestState
from minicloud.model.inventory import Bus, Node, Template, VirtType

PVM = dataclasses.replace(SURVEY, modules={"kvm_pvm"})
NONE = dataclasses.replace(SURVEY, modules=set(), kvm=None)
CLOSED = dataclasses.replace(SURVEY, kvm=KvmDevice(0o600, "root", "root"))
ARM = dataclasses.replace(SURVEY, modules=set(), arch="aarch64")


def judged(templates=(), **found):
    return by_name(list(check_machine(exam_of(**found), templates)))


def node(virt_type):
    return Node(name="ham1", host="ham1.lan", virt_type=virt_type)


def template(**fields):
    values = {"name": "deb", "image": ("x",), "memory": 1 << 30, "vcpus": 1, "bus": Bus.VIRTIO}
    return Template(**(values | {"network": "user"} | fields))


@pytest.mark.parametrize(
    ("survey", "words"),
    [(PVM, "kvm_pvm"), (NONE, "it has no KVM"), (CLOSED, "0600 root:root")],
    ids=["another's module", "none", "closed device"],
)
@pytest.mark.parametrize(
    ("virt_type", "status"), [(VirtType.KVM, Status.FAILED), (VirtType.AUTO, Status.WARNING)]
)
def test_kvm_that_does_not_work_fails_only_where_it_is_insisted_on(
    survey, words, virt_type, status
):
    found = judged(survey=survey, node=node(virt_type), boots=None)
    assert found["virt-type"].status is status
    assert words in found["virt-type"].text
    assert found["virt-type"].remedy


@pytest.mark.parametrize(
    ("virt_type", "status"), [(VirtType.KVM, Status.FAILED), (VirtType.AUTO, Status.WARNING)]
)
def test_a_guest_that_did_not_boot_is_believed_more_than_the_device(virt_type, status):
    found = judged(node=node(virt_type), boots=False)
    assert found["virt-type"].status is status
    assert "did not boot" in found["virt-type"].text


@pytest.mark.parametrize(
    ("boots", "words"),
    [
        (True, "a guest booted"),
        (None, "not tried"),
        (StorageError("unreachable", "no nbdserve"), "not tried with a guest: no nbdserve"),
    ],
)
def test_kvm_that_is_there_is_good_and_says_how_that_is_known(boots, words):
    found = judged(boots=boots)
    assert found["virt-type"].status is Status.OK
    assert words in found["virt-type"].text


def test_another_architecture_needs_no_x86_makers_module():
    assert judged(survey=ARM, boots=None)["virt-type"].status is Status.OK


def test_emulation_that_is_asked_for_is_good_unless_the_device_slows_libvirt():
    assert judged(survey=PVM, node=node(VirtType.QEMU))["virt-type"].status is Status.OK
    found = judged(survey=CLOSED, node=node(VirtType.QEMU))
    assert found["virt-type"].status is Status.WARNING
    assert "anew each time" in found["virt-type"].text


def test_a_closed_device_of_another_maker_slows_libvirt_all_the_same():
    survey = dataclasses.replace(PVM, kvm=CLOSED.kvm)
    found = judged(survey=survey, node=node(VirtType.QEMU))
    assert "chmod 0660" in found["virt-type"].remedy


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1000.5, "as ours"),
        (1002.9, "as ours"),  # 1.9 s after the latest it can have been read
        (1003.5, "2 s ahead of ours"),
        (940.0, "60 s behind ours"),
    ],
)
def test_a_clock_is_wrong_by_what_the_way_does_not_explain(seconds, text):
    survey = dataclasses.replace(SURVEY, seconds=seconds)
    found = judged(survey=survey, clock=Clock(1000.0, 1001.0))
    assert found["clock"].text == text
    assert (found["clock"].status is Status.OK) == (text == "as ours")


def test_a_node_without_a_shell_says_nothing_of_itself():
    found = judged(survey=NodeError(Reason.COMMAND, "`sh` did not end within 10 s"))
    assert found["virt-type"].status is Status.FAILED
    assert found["clock"].status is Status.SKIPPED
    assert found["memory"].status is Status.OK


def guest(memory, vcpus=1):
    return Guest(
        name="web1", uuid="u", node="ham1", state=GuestState.RUNNING, vcpus=vcpus, memory=memory,
        is_active=True, is_persistent=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "status", "words"),
    [
        ({}, Status.OK, "15360 MiB free for guests"),
        ({"memory": 1 << 30}, Status.FAILED, "leaves nothing"),
        ({"guests": (guest(15 << 30), guest(1 << 30))}, Status.WARNING, "1024 MiB more"),
        ({"memory": 3 << 29}, Status.WARNING, "too little for any guest of deb"),
    ],
)
def test_memory_is_judged_against_the_reserve(facts, status, words):
    found = judged([template()], abilities=abilities(**facts))
    assert found["memory"].status is status
    assert words in found["memory"].text


def test_processors_are_judged_against_the_templates():
    assert judged([template(vcpus=8)])["cpus"].status is Status.OK
    found = judged([template(vcpus=9)])
    assert found["cpus"].status is Status.WARNING
    assert "deb" in found["cpus"].text


def test_without_libvirt_neither_is_known():
    found = judged(abilities=NodeError(Reason.LIBVIRT_HUNG, "hung"))
    assert {found[name].status for name in ("memory", "cpus")} == {Status.SKIPPED}
