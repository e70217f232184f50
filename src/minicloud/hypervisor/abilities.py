"""What the libvirt of a node can do for our guests; runs on a thread of the node.

Whether libvirt knows a setting is asked by having it write qemu's command line of a guest that has
it, which makes no guest: what it does not know it drops there in silence, as everywhere.
"""

from dataclasses import dataclass
from typing import Any, Final

from minicloud.hypervisor.binding import libvirt_module
from minicloud.hypervisor.facts import read_facts
from minicloud.hypervisor.networks import active_networks
from minicloud.model.guest import NodeFacts

__all__ = ["Abilities", "read_abilities"]

_GUEST: Final = """
<domain type='qemu'><name>minicloud-doctor</name><memory unit='MiB'>64</memory>
<os><type>hvm</type></os>
<devices><disk type='network' device='disk'><driver name='qemu' type='raw'/>
<source protocol='nbd' name='x'><host name='127.0.0.1' port='10809'/><reconnect delay='60'/>
</source><target dev='vda' bus='virtio'/></disk></devices></domain>
"""


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a node's libvirt says.

    Attributes:
        facts: of the node.
        networks: libvirt's networks that are active.
        reconnects: whether qemu waits for an NBD server that is away; None where libvirt does not
            say.
    """

    facts: NodeFacts
    networks: frozenset[str]
    reconnects: bool | None


def read_abilities(connection: Any, node: str) -> Abilities:
    """Ask a virConnect.

    Args:
        connection: the virConnect.
        node: our name of it.

    Raises:
        libvirtError: as libvirt says.
    """
    facts = read_facts(connection, node, with_origin=False)
    reconnects = None if facts.qemu is None else _reconnects(connection)
    return Abilities(facts, active_networks(connection), reconnects)


def _reconnects(connection: Any) -> bool | None:
    libvirt = libvirt_module()
    try:
        argv = connection.domainXMLToNative("qemu-argv", _GUEST, 0)
    except libvirt.libvirtError as exc:
        if exc.get_error_domain() == libvirt.VIR_FROM_RPC:
            raise
        return None
    return "reconnect-delay" in argv
