"""The node as a machine: KVM, memory and processors, clock. Pure.

KVM is the trap: a module of another maker than Intel and AMD (PVM) offers /dev/kvm and takes
guests it never runs, and a /dev/kvm that qemu may not open has libvirtd ask qemu anew, four seconds
each time, what it can do.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from minicloud.booting.virttype import KVM_MODULES
from minicloud.doctor.check import Check, Subject
from minicloud.doctor.exam import Clock, Exam, came
from minicloud.doctor.survey import Survey
from minicloud.errors import MinicloudError
from minicloud.hypervisor.abilities import Abilities
from minicloud.model.inventory import Node, Template, VirtType

__all__ = ["check_machine", "kvm_problem"]

_X86: Final = "x86_64"
_MIB: Final = 1 << 20
_SKEW: Final = 2.0  # seconds; beyond, logs and certificates of two nodes tell another story


def check_machine(exam: Exam, templates: Sequence[Template]) -> Iterator[Check]:
    """Judge a node that let us in."""
    subject = Subject(exam.node.name)
    match came(exam.survey):
        case Survey() as survey:
            yield _virt_type(subject, exam, survey)
            yield _clock(subject, survey, exam.clock)
        case MinicloudError() as error:
            yield subject.failed("virt-type", str(error), "give the user a shell on the node")
            yield subject.skipped("clock", "virt-type failed")
    if isinstance(exam.abilities, Abilities):
        yield _memory(subject, exam.node, exam.abilities, templates)
        yield _processors(subject, exam.abilities, templates)
    else:
        yield subject.skipped("memory", "libvirt failed")
        yield subject.skipped("cpus", "libvirt failed")


def kvm_problem(survey: Survey) -> tuple[str, str] | None:
    """Say why guests cannot run under KVM on a node, and what to do about it; None: they may."""
    if survey.arch == _X86 and not set(KVM_MODULES) & set(survey.modules):
        if survey.kvm is None:
            return (
                "it has no KVM",
                "switch virtualisation on in its firmware, or modprobe kvm_intel",
            )
        others = ", ".join(sorted(survey.modules)) or "no module of Intel's or AMD's"
        return (
            f"its /dev/kvm is not a processor's ({others}): it takes guests and never runs them",
            'guests can be emulated there: virt-type = "qemu"',
        )
    if survey.kvm is None:
        return "it has no /dev/kvm", "modprobe kvm_intel or kvm_amd there"
    return _closed(survey)


def _closed(survey: Survey) -> tuple[str, str] | None:
    """Say what is wrong with who may use /dev/kvm."""
    if survey.kvm is None or survey.kvm.is_for_guests:
        return None
    return (
        f"qemu may not use its /dev/kvm ({survey.kvm}), and libvirt asks qemu anew each time",
        "on the node: chgrp kvm /dev/kvm && chmod 0660 /dev/kvm (udev does so by itself)",
    )


def _virt_type(subject: Subject, exam: Exam, survey: Survey) -> Check:
    wanted = exam.node.virt_type
    if wanted is VirtType.QEMU:
        if closed := _closed(survey):
            return subject.warning("virt-type", f"qemu, as set; but {closed[0]}", closed[1])
        return subject.good("virt-type", "qemu, as set: guests are emulated")
    problem = kvm_problem(survey)
    if problem is None and exam.boots is False:
        problem = (
            "its /dev/kvm is there, but a guest that was tried did not boot",
            'see /var/log/libvirt/qemu on the node; guests can be emulated: virt-type = "qemu"',
        )
    if problem is None:
        shown = "a guest booted" if exam.boots is True else "not tried with a guest"
        if isinstance(exam.boots, MinicloudError):
            shown = f"{shown}: {exam.boots}"
        modules = ", ".join(sorted(survey.modules)) or "/dev/kvm"
        return subject.good("virt-type", f"kvm ({modules}; {shown})")
    if wanted is VirtType.KVM:
        return subject.failed("virt-type", f"kvm is set, but {problem[0]}", problem[1])
    return subject.warning("virt-type", f"guests are emulated: {problem[0]}", problem[1])


def _clock(subject: Subject, survey: Survey, clock: Clock | None) -> Check:
    if survey.seconds is None or clock is None:
        return subject.warning("clock", "it did not say what time it is")
    # it was read between our asking and its telling
    skew = survey.seconds - min(max(survey.seconds, clock.asked), clock.told)
    if abs(skew) < _SKEW:
        return subject.good("clock", "as ours")
    way = "ahead of" if skew > 0 else "behind"
    return subject.warning(
        "clock", f"{abs(skew):.0f} s {way} ours", "systemctl enable --now chrony (or timesyncd)"
    )


def _memory(
    subject: Subject, node: Node, abilities: Abilities, templates: Sequence[Template]
) -> Check:
    total, reserve = abilities.facts.memory, node.reserve
    free = abilities.facts.memory_free(reserve)
    text = f"{_mib(total)} in all, {_mib(reserve)} reserved, {_mib(free)} free for guests"
    if reserve >= total:
        return subject.failed(
            "memory", f"the reserve of {_mib(reserve)} leaves nothing of {_mib(total)}",
            f"a smaller `reserve` of [nodes.{node.name}]",
        )  # fmt: skip
    if free < 0:
        return subject.warning(
            "memory", f"its guests may ask for {_mib(-free)} more than there is: {text}",
            "move guests away: minicloud migrate",
        )  # fmt: skip
    if large := [one for one in templates if one.memory > total - reserve]:
        return subject.warning(
            "memory", f"too little for any guest of {_names(large)}: {text}",
            "less `memory` in the template, or a smaller `reserve` of the node",
        )  # fmt: skip
    return subject.good("memory", text)


def _processors(subject: Subject, abilities: Abilities, templates: Sequence[Template]) -> Check:
    cpus = abilities.facts.cpus
    text = f"{cpus}, of which guests have {abilities.facts.vcpus_used} vCPUs"
    if wide := [one for one in templates if one.vcpus > cpus]:
        return subject.warning(
            "cpus", f"{text}; fewer than a guest of {_names(wide)} has", "fewer `vcpus` there"
        )
    return subject.good("cpus", text)


def _names(templates: Sequence[Template]) -> str:
    return ", ".join(template.name for template in templates)


def _mib(size: int) -> str:
    return f"{size // _MIB} MiB"
