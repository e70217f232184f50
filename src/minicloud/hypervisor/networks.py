"""libvirt's networks on a node; runs on a thread of the node."""

from typing import Any

from minicloud.hypervisor.binding import libvirt_module

__all__ = ["active_networks"]


def active_networks(connection: Any) -> frozenset[str]:
    """Name those that guests can be connected to.

    Raises:
        libvirtError: as libvirt says.
    """
    libvirt = libvirt_module()
    try:
        found = connection.listAllNetworks(libvirt.VIR_CONNECT_LIST_NETWORKS_ACTIVE)
    except libvirt.libvirtError as exc:
        if exc.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
        return frozenset()  # its daemon of networks is not installed
    return frozenset(network.name() for network in found)
