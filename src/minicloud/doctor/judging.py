"""All checks of a run, out of all that was found; those that rest on a failed one are skipped."""

from collections.abc import Iterator

from minicloud.doctor.access import check_access
from minicloud.doctor.certificates import check_certificates
from minicloud.doctor.check import Check, Status, Subject
from minicloud.doctor.daemon import check_daemon
from minicloud.doctor.exam import Exam
from minicloud.doctor.machine import check_machine
from minicloud.doctor.reach import check_exports, check_migration, check_networks, wanted
from minicloud.inventory.reading import warnings_of
from minicloud.model.inventory import Inventory

__all__ = ["check_inventory", "check_node"]

_AFTER_LOGIN = (
    "socket", "forwarding", "libvirt", "qemu", "reconnect", "virt-type", "clock", "memory", "cpus",
)  # fmt: skip


def check_inventory(inventory: Inventory) -> Iterator[Check]:
    """Judge what the operator wrote; it has been read, so it has no errors."""
    subject = Subject("inventory")
    nodes, templates = len(inventory.nodes), len(inventory.templates)
    yield subject.good("read", f"{inventory.file}: {nodes} node(s), {templates} template(s)")
    for number, text in enumerate(warnings_of(inventory), 1):
        yield subject.warning(f"warning {number}", text, "correct the inventory")
    if not inventory.nodes:
        yield subject.failed("nodes", "it has no nodes", "write a [nodes.NAME] table")
    if inventory.nbd is None:
        yield subject.warning(
            "nbd", "it has no [nbd] table: guests that are there are looked after, none are made",
            "say in [nbd] where nbdserve runs",
        )  # fmt: skip


def check_node(exam: Exam, inventory: Inventory) -> list[Check]:
    """Judge one node, along the way from here to a guest's disk."""
    checks = list(check_access(exam))
    if not exam.is_in:
        failed = next(one.name for one in checks if one.status is Status.FAILED)
        subject = Subject(exam.node.name)
        names = (*_AFTER_LOGIN, *_about(inventory))
        return [*checks, *(subject.skipped(name, f"{failed} failed") for name in names)]
    templates = list(inventory.templates.values())
    return [
        *checks,
        *check_daemon(exam),
        *check_machine(exam, templates),
        *check_networks(exam, wanted(inventory)),
        *check_exports(exam, inventory.nbd),
        *check_certificates(exam, inventory.nbd),
        *check_migration(exam, inventory),
    ]


def _about(inventory: Inventory) -> Iterator[str]:
    """Name the checks that depend on the inventory, of a node they were not made on."""
    for network in wanted(inventory):
        kind, _, name = network.partition(":")
        if name:
            yield f"{kind} {name}"
    if inventory.nbd is not None:
        yield "exports"
        if inventory.nbd.tls and inventory.nbd.socket is None:
            yield "certificates"
            yield "tls"
    yield "migration"
