"""Guests, and what nodes say of themselves: plain facts, copied out of libvirt's own objects."""

import enum
from dataclasses import dataclass
from datetime import datetime

__all__ = ["Guest", "GuestKind", "GuestState", "NodeFacts", "Origin"]


class GuestKind(enum.StrEnum):
    """Cattle are transient and their disk is discarded with them; pets are defined and kept."""

    CATTLE = "cattle"
    PET = "pet"


class GuestState(enum.StrEnum):
    """libvirt's virDomainState, by its names in `virsh list`."""

    RUNNING = "running"
    BLOCKED = "idle"
    PAUSED = "paused"
    SHUTDOWN = "in shutdown"
    SHUTOFF = "shut off"
    CRASHED = "crashed"
    SUSPENDED = "pmsuspended"
    UNKNOWN = "no state"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What minicloud knows of a guest it made; kept in the domain's <metadata>, nowhere else.

    Attributes:
        kind: cattle or pet.
        template: the template's name.
        image: the image's first URL or path.
        export: name of the export of its disk.
        seed: name of the export of its cloud-init seed, or None.
        created: when, UTC.
        user: the operator's name and host.
    """

    kind: GuestKind
    template: str
    image: str
    export: str
    seed: str | None
    created: datetime
    user: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A domain on a node, minicloud's own or any other.

    Attributes:
        name: unique on its node; minicloud keeps it unique in the cluster.
        uuid: of the domain.
        node: the node's name.
        state: what it does.
        reason: why, in libvirt's words (`I/O error`), or "".
        vcpus: how many it has.
        memory: bytes, its most (what it may ask for counts, not what it has).
        is_active: it runs or is paused: it holds its memory.
        is_persistent: its definition survives a power-off.
        origin: None for domains minicloud did not make.
    """

    name: str
    uuid: str
    node: str
    state: GuestState
    reason: str = ""
    vcpus: int
    memory: int
    is_active: bool
    is_persistent: bool
    origin: Origin | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What a node says of itself.

    Attributes:
        hostname: its own.
        cpus: logical ones.
        memory: bytes in all.
        memory_available: bytes the kernel would give now (free + buffers + cached), or None.
        libvirt: version, (major, minor, release).
        qemu: likewise, or None.
        guests: all domains, active or not.
    """

    hostname: str
    cpus: int
    memory: int
    memory_available: int | None
    libvirt: tuple[int, int, int]
    qemu: tuple[int, int, int] | None
    guests: tuple[Guest, ...]

    @property
    def vcpus_used(self) -> int:
        """Of the active guests."""
        return sum(guest.vcpus for guest in self.guests if guest.is_active)

    @property
    def memory_used(self) -> int:
        """Bytes the active guests may ask for."""
        return sum(guest.memory for guest in self.guests if guest.is_active)

    def memory_free(self, reserve: int) -> int:
        """Bytes further guests may have: total - reserve - memory of guests, as mclu counts."""
        return self.memory - reserve - self.memory_used
