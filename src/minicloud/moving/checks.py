"""Whether a guest can move from one node to another, by what both ends said before anything moves.

Every check is a function of facts that were gathered beforehand, and makes one finding. A migration
that would fail half-way is refused here with its reason; what libvirt alone can know it still says
itself, without harm, when it prepares the target.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from minicloud.model.guest import GuestState
from minicloud.moving.definition import Definition, DiskPlace, DiskSource
from minicloud.moving.finding import Finding, good, problem, warning
from minicloud.moving.probe import MIGRATION_PORT, Address, Probe, Reach

__all__ = ["Source", "Target", "check_leaving", "check_migration", "check_target", "check_ties"]

Version = tuple[int, int, int]

_MOVABLE = (GuestState.RUNNING, GuestState.BLOCKED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The end a guest leaves.

    Attributes:
        node: its name.
        definition: of the guest, as it runs.
        state: what it does.
        reason: why, or "".
        is_active: it runs or is paused; one that does not is moved as a definition alone.
        is_persistent: its definition is kept here.
        libvirt: version.
        qemu: version, or None.
        port: what became of a connection from here to the target's migration port.
    """

    node: str
    definition: Definition
    state: GuestState
    reason: str = ""
    is_active: bool = True
    is_persistent: bool = False
    libvirt: Version
    qemu: Version | None
    port: Reach = Reach.UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The end a guest comes to.

    Attributes:
        node: its name.
        address: what the source connects to for the migration.
        libvirt: version.
        qemu: version, or None.
        guests: uuid of each domain there by name.
        active: names of those that run.
        free: bytes of memory after the reserve.
        machine_error: why this emulator, machine type and virt type cannot run there, or "".
        cpu_error: why the processor cannot be had there, or "".
        networks: libvirt's networks that are active there.
        probe: what it reaches and has.
    """

    node: str
    address: str
    libvirt: Version
    qemu: Version | None
    guests: Mapping[str, str] = field(default_factory=dict)
    active: frozenset[str] = frozenset()
    free: int
    machine_error: str = ""
    cpu_error: str = ""
    networks: frozenset[str] = frozenset()
    probe: Probe = field(default_factory=Probe)


def check_migration(source: Source, target: Target) -> tuple[Finding, ...]:
    """Check both ends and the way between them."""
    return (
        *check_leaving(source),
        _versions(source, target),
        *([_port(source, target)] if source.is_active else []),
        *check_target(source.definition, target, is_started=source.is_active),
    )


def check_leaving(source: Source) -> tuple[Finding, ...]:
    """Check what keeps a guest on its node, wherever it is to go."""
    return (_state(source), *check_ties(source.definition))


def check_ties(definition: Definition) -> tuple[Finding, ...]:
    """Check what ties a guest to one node for ever: its disks, and devices of that node."""
    disks = (_tied(disk) for disk in definition.disks)
    devices = (
        problem(
            "device", f"it has the device {device} of its node to itself",
            "take it out of the guest first",
        )
        for device in definition.passed
    )  # fmt: skip
    return (*(tied for tied in disks if tied is not None), *devices)


def check_target(
    definition: Definition, target: Target, *, is_started: bool = True
) -> tuple[Finding, ...]:
    """Check whether a node can run a guest, wherever it comes from.

    Args:
        definition: of the guest.
        target: the node.
        is_started: it is to run there at once; else memory does not matter yet.
    """
    return tuple(_of_target(definition, target, is_started=is_started))


def _of_target(definition: Definition, target: Target, *, is_started: bool) -> Iterator[Finding]:
    yield _name(definition, target)
    yield _machine(definition, target)
    yield _processor(definition, target)
    if is_started:
        yield _memory(definition, target)
    for disk in definition.disks:
        if _tied(disk) is None:
            yield _disk(disk, target)
    for name in definition.networks:
        yield _network(name, target)
    for name in definition.bridges:
        yield _bridge(name, target)
    for path in definition.files:
        yield _file(path, target)


def _state(source: Source) -> Finding:
    if not source.is_active:
        return good("state", f"it is shut off; its definition alone moves from {source.node}")
    if source.state in _MOVABLE:
        return good("state", f"it runs on {source.node}")
    why = f" ({source.reason})" if source.reason else ""
    return problem(
        "state", f"it is {source.state}{why}", "resume it first, or see why it does not run"
    )


def _versions(source: Source, target: Target) -> Finding:
    for program, here, there in (
        ("qemu", source.qemu, target.qemu),
        ("libvirt", source.libvirt, target.libvirt),
    ):
        if there is None:
            return problem("versions", f"{target.node} has no {program}", f"install {program}")
        if here is not None and there < here:
            return problem(
                "versions",
                f"{program} {_dotted(there)} of {target.node} is older than {_dotted(here)} of "
                f"{source.node}",
                f"bring {target.node} up to date; a guest moves only forward",
            )
    assert target.qemu is not None
    return good("versions", f"qemu {_dotted(target.qemu)}, libvirt {_dotted(target.libvirt)}")


def _port(source: Source, target: Target) -> Finding:
    place = f"{target.address}:{MIGRATION_PORT}"
    if source.port in (Reach.OPEN, Reach.REFUSED):  # nothing listens until the guest comes
        return good("port", f"{source.node} reaches {place}")
    if source.port is Reach.UNKNOWN:
        return warning("port", f"{source.node} has no bash, python3 or nc to try {place} with")
    return problem(
        "port", f"{source.node} cannot reach {place}: {source.port}",
        f"let TCP ports 49152-49215 into {target.node}, or set migrate_host of [nodes."
        f"{target.node}]",
    )  # fmt: skip


def _name(definition: Definition, target: Target) -> Finding:
    uuid = target.guests.get(definition.name)
    if uuid is None:
        return good("name", f"{target.node} has no other {definition.name}")
    if definition.name in target.active:
        return problem(
            "name", f"a guest {definition.name} runs on {target.node} already",
            "if it is the same one, two nodes may write to one disk: stop one of them",
        )  # fmt: skip
    if uuid == definition.uuid:
        return warning("name", f"its old definition on {target.node} is replaced")
    return problem(
        "name", f"{target.node} has another guest {definition.name}",
        f"rename or undefine that one (virsh domrename {definition.name} …)",
    )  # fmt: skip


def _machine(definition: Definition, target: Target) -> Finding:
    what = f"{definition.virt_type} {definition.machine}".strip()
    if target.machine_error:
        return problem(
            "machine", f"{target.node} cannot run {what}: {target.machine_error}",
            "use nodes with the same emulator, and the same virt_type",
        )  # fmt: skip
    return good("machine", f"{target.node} knows {what}")


def _processor(definition: Definition, target: Target) -> Finding:
    if target.cpu_error:
        return problem(
            "cpu", f"{target.node} lacks what its processor has: {target.cpu_error}",
            "give guests a model that all nodes have (cpu in [defaults])",
        )  # fmt: skip
    if definition.cpu_mode == "host-passthrough":
        return warning(
            "cpu", "its processor is the host's own; between unlike nodes it may crash",
            'cpu = "host-model" for guests that move',
        )  # fmt: skip
    return good("cpu", f"{target.node} has the processor ({definition.cpu_mode or 'default'})")


def _memory(definition: Definition, target: Target) -> Finding:
    need = f"{_mib(definition.memory)} MiB"
    if definition.memory > target.free:
        return problem(
            "memory", f"it needs {need}, {target.node} has {_mib(max(target.free, 0))} MiB free",
            "stop a guest there, or choose another node (minicloud status)",
        )  # fmt: skip
    return good("memory", f"{need} of {_mib(target.free)} MiB free")


def _tied(disk: DiskSource) -> Finding | None:
    """Say why a disk keeps its guest on its node, if it does."""
    name = f"disk {disk.target}"
    if disk.place is DiskPlace.LOCAL:
        return problem(
            name, f"its disk {disk.where} is on its own node",
            "a guest that moves has its disks on the export server",
        )  # fmt: skip
    if disk.place is DiskPlace.NBD_SOCKET:
        return problem(
            name, f"it is served at {disk.where}, a Unix socket of its own node",
            "serve exports over TCP ([nbd] address, no socket)",
        )  # fmt: skip
    if disk.is_on_loopback:
        return problem(
            name, f"{disk.host}:{disk.port} is another machine on every node",
            "give the export server's own address ([nbd] address)",
        )  # fmt: skip
    return None


def _disk(disk: DiskSource, target: Target) -> Finding:
    name = f"disk {disk.target}"
    if disk.place is DiskPlace.EMPTY:
        return good(name, "an empty drive")
    if disk.place is DiskPlace.NETWORK:
        return warning(name, f"{disk.where} is not tried from {target.node}")
    address: Address = (disk.host, disk.port)
    place = f"{disk.host}:{disk.port}"
    reach = target.probe.addresses.get(address, Reach.UNKNOWN)
    if reach is Reach.OPEN:
        return good(name, f"{target.node} reaches {disk.where}")
    if reach is Reach.UNKNOWN:
        return warning(name, f"{target.node} has no bash, python3 or nc to try {place} with")
    return problem(
        name, f"{target.node} cannot reach the export server at {place}: {reach}",
        "is nbdserve listening on that address, and does a firewall let it through?",
    )  # fmt: skip


def _network(name: str, target: Target) -> Finding:
    if name in target.networks:
        return good("network", f"{target.node} has the network {name}")
    return problem(
        "network", f"{target.node} has no active network {name}",
        f"on {target.node}: virsh net-start {name}",
    )  # fmt: skip


def _bridge(name: str, target: Target) -> Finding:
    match target.probe.bridges.get(name):
        case True:
            return good("network", f"{target.node} has the bridge {name}")
        case False:
            return problem("network", f"{target.node} has no bridge {name}", "make one")
    return warning("network", f"{target.node} did not say whether it has the bridge {name}")


def _file(path: str, target: Target) -> Finding:
    match target.probe.files.get(path):
        case True:
            return good("file", f"{target.node} has {path}")
        case False:
            return problem("file", f"{target.node} has no {path}", "copy it there")
    return warning("file", f"{target.node} did not say whether it has {path}")


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))


def _mib(size: int) -> int:
    return size >> 20
