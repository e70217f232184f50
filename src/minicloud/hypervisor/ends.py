"""What libvirt says of both ends of a migration before it begins; runs on a thread of a node."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

from minicloud.hypervisor.binding import libvirt_module
from minicloud.hypervisor.networks import active_networks
from minicloud.moving.definition import Definition

__all__ = ["Answers", "Leaving", "ask_target", "read_leaving"]


@dataclass(frozen=True, slots=True)
class Leaving:
    """What the source says of the guest.

    Attributes:
        xml: as it is now, running or not.
        kept: as it is to be defined anew, without what a run has added.
        host_cpu: the node's own processor, as XML.
    """

    xml: str
    kept: str
    host_cpu: str


@dataclass(frozen=True, slots=True)
class Answers:
    """What the target says to a guest's definition.

    Attributes:
        machine_error: why it cannot run such a machine, or "".
        cpu_error: why it has no such processor, or "".
        networks: libvirt's networks that are active.
    """

    machine_error: str
    cpu_error: str
    networks: frozenset[str]


def read_leaving(connection: Any, uuid: str) -> Leaving:
    """Read a guest's definition."""
    libvirt = libvirt_module()
    domain = connection.lookupByUUIDString(uuid)
    capabilities = ET.fromstring(connection.getCapabilities())  # noqa: S314 -- libvirtd's own
    cpu = capabilities.find("./host/cpu")
    return Leaving(
        xml=domain.XMLDesc(0),
        kept=domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_MIGRATABLE),
        host_cpu="" if cpu is None else ET.tostring(cpu, encoding="unicode"),
    )


def ask_target(connection: Any, definition: Definition, host_cpu: str = "") -> Answers:
    """Ask a node whether it can run a guest.

    Args:
        connection: virConnect of the node.
        definition: the guest's.
        host_cpu: the processor of the node it runs on, for guests that have just that.
    """
    machine_error = _refusal(
        lambda: connection.getDomainCapabilities(
            definition.emulator or None, definition.arch, definition.machine or None,
            definition.virt_type, 0,
        )
    )  # fmt: skip
    cpu_error = "" if machine_error else _processor(connection, definition, host_cpu)
    return Answers(machine_error, cpu_error, active_networks(connection))


def _processor(connection: Any, definition: Definition, host_cpu: str) -> str:
    libvirt = libvirt_module()
    flag = libvirt.VIR_CONNECT_COMPARE_CPU_FAIL_INCOMPATIBLE
    if definition.cpu_mode == "host-passthrough":
        return _refusal(lambda: connection.compareCPU(host_cpu, flag)) if host_cpu else ""
    if not definition.cpu:
        return ""
    return _refusal(
        lambda: connection.compareHypervisorCPU(
            definition.emulator or None, definition.arch, definition.machine or None,
            definition.virt_type, definition.cpu, flag,
        )
    )  # fmt: skip


def _refusal(ask: Callable[[], Any]) -> str:
    """Ask, and return why the answer is no; what a driver cannot tell at all is no refusal.

    A connection that has died says no to everything; the next call then raises what it is.
    """
    libvirt = libvirt_module()
    try:
        ask()
    except libvirt.libvirtError as exc:
        if exc.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            return ""
        # libvirt puts the kind of the error before its words: `invalid argument: the machine …`
        message = " ".join((exc.get_error_message() or str(exc)).split())
        return message.removeprefix("invalid argument: ")
    return ""
