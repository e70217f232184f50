"""A guest started again from its definition, and a definition forgotten; on a thread of a node."""

from typing import Any

from minicloud.hypervisor.binding import libvirt_module

__all__ = ["revive", "undefine"]


def revive(connection: Any, xml: str, *, is_persistent: bool) -> None:
    """Start a guest from its XML, with the uuid and addresses it had.

    Args:
        connection: virConnect of its new node.
        xml: its definition.
        is_persistent: a pet: its definition is kept, and it starts with the node.

    Raises:
        libvirtError: it does not run; nothing is left of it.
    """
    libvirt = libvirt_module()
    if not is_persistent:
        connection.createXML(xml, 0)
        return
    domain = connection.defineXML(xml)
    try:
        domain.setAutostart(1)
        domain.create()
    except libvirt.libvirtError:
        domain.undefine()
        raise


def undefine(connection: Any, uuid: str) -> None:
    """Forget a definition, and nothing of the guest's disks; one that runs is left alone."""
    domain = connection.lookupByUUIDString(uuid)
    if not domain.isActive():
        domain.undefine()
