"""What was found out of one node, filled in as it comes.

A field is the value, the error that came instead, or None while nothing has come: a node whose time
is over is judged by what there is of it.
"""

from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from minicloud.doctor.survey import Survey
from minicloud.doctor.tlsfiles import Certificates
from minicloud.doctor.tlstrial import Trial
from minicloud.errors import MinicloudError, NodeError, Reason
from minicloud.hypervisor.abilities import Abilities
from minicloud.hypervisor.sockets import Sockets
from minicloud.model.inventory import Node
from minicloud.moving.probe import Probe
from minicloud.ssh.access import Access

__all__ = ["Clock", "Exam", "Found", "came"]

T = TypeVar("T")

Found: TypeAlias = T | MinicloudError | None


@dataclass(frozen=True, slots=True)
class Clock:
    """When a node was asked for the time, and told it, by our own clock; seconds since 1970."""

    asked: float
    told: float


@dataclass(slots=True)
class Exam:
    """All that is known of a node.

    Attributes:
        node: it.
        access: how it was come to.
        note: on that, or "".
        survey: what its shell says.
        clock: when that was.
        sockets: of libvirt.
        opened: that one of them which sshd forwards to; "" for none.
        abilities: what libvirt says.
        boots: whether a guest really boots under KVM there; None where that was not tried.
        probe: what it reaches and has.
        nbd: whether the exports' Unix socket on the node answers as an NBD server.
        certificates: what it has for its guests' qemu; only looked for where they speak TLS.
        tls: what came of a try of it with the export server; likewise.
        migration: what became of a connection to each other node's migration port.
    """

    node: Node
    access: Found[Access] = None
    note: str = ""
    survey: Found[Survey] = None
    clock: Clock | None = None
    sockets: Found[Sockets] = None
    opened: str = ""
    abilities: Found[Abilities] = None
    boots: Found[bool] = None
    probe: Found[Probe] = None
    nbd: Found[bool] = None
    certificates: Found[Certificates] = None
    tls: Found[Trial] = None
    migration: dict[str, Found[Probe]] = field(default_factory=dict)

    @property
    def is_in(self) -> bool:
        """Whether the login worked."""
        return isinstance(self.access, Access)

    @property
    def is_usable(self) -> bool:
        """Whether libvirt answered."""
        return isinstance(self.abilities, Abilities)


def came(found: Found[T]) -> T | MinicloudError:
    """Return what there is; nothing is an error too."""
    if found is None:
        return NodeError(
            Reason.DEADLINE, "not known within the time for all", "give more with --timeout"
        )
    return found
