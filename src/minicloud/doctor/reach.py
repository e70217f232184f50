"""What guests need around their node: networks, the exports, the way to other nodes. Pure."""

from collections.abc import Iterator, Mapping, Sequence

from minicloud.doctor.check import Check, Subject
from minicloud.doctor.exam import Exam, came
from minicloud.domain.plan import NetworkKind, parse_network
from minicloud.errors import MinicloudError
from minicloud.hypervisor.abilities import Abilities
from minicloud.model.inventory import Inventory, NbdService, Node
from minicloud.moving.probe import MIGRATION_PORT, Address, Probe, Reach, address_of

__all__ = [
    "bridges",
    "check_exports",
    "check_migration",
    "check_networks",
    "reaches_exports",
    "wanted",
]

_ANSWERS = (Reach.OPEN, Reach.REFUSED)  # nothing listens at a migration port until a guest comes
_FIREWALL = "let TCP ports 49152-49215 in there, or set `migrate_host` of [nodes.{}]"


def wanted(inventory: Inventory) -> Mapping[str, Sequence[str]]:
    """Tell which networks guests are put on, and by whom: templates, or `[defaults]` by "".

    Where nothing is served no guest is made, and so none is wanted.
    """
    if inventory.nbd is None:
        return {}
    found: dict[str, list[str]] = {}
    for template in inventory.templates.values():
        found.setdefault(template.network, []).append(template.name)
    found.setdefault(inventory.defaults.network, [])
    return found


def bridges(networks: Mapping[str, Sequence[str]]) -> list[str]:
    """Pick the names of the bridges."""
    parsed = map(parse_network, networks)
    return [one.name for one in parsed if one.kind is NetworkKind.BRIDGE]


def check_networks(exam: Exam, networks: Mapping[str, Sequence[str]]) -> Iterator[Check]:
    """Judge whether the networks are on a node that let us in."""
    for text, templates in networks.items():
        network = parse_network(text)
        if network.kind in (NetworkKind.BRIDGE, NetworkKind.NETWORK):
            is_needed = bool(templates) or len(networks) == 1
            who = ", ".join(templates) or "[defaults]"
            if network.kind is NetworkKind.BRIDGE:
                yield _bridge(exam, network.name, who, is_needed=is_needed)
            else:
                yield _network(exam, network.name, who, is_needed=is_needed)


def _bridge(exam: Exam, name: str, who: str, *, is_needed: bool) -> Check:
    subject, check = Subject(exam.node.name), f"bridge {name}"
    found = came(exam.probe)
    if isinstance(found, MinicloudError):
        return subject.failed(check, str(found), "give the user a shell on the node")
    if (answer := found.bridges.get(name)) is None:
        return subject.warning(check, "the node did not say whether it has it")
    if answer:
        return subject.good(check, f"for {who}")
    made = subject.failed if is_needed else subject.warning
    return made(
        check, f"there is none, and guests of {who} want it",
        f"make a bridge {name} on the node, or name another network in the template",
    )  # fmt: skip


def _network(exam: Exam, name: str, who: str, *, is_needed: bool) -> Check:
    subject, check = Subject(exam.node.name), f"network {name}"
    if not isinstance(exam.abilities, Abilities):
        return subject.skipped(check, "libvirt failed")
    if name in exam.abilities.networks:
        return subject.good(check, f"for {who}")
    made = subject.failed if is_needed else subject.warning
    return made(
        check, f"libvirt has no such active network, and guests of {who} want it",
        f"on the node: virsh net-start {name} && virsh net-autostart {name}",
    )  # fmt: skip


def check_exports(exam: Exam, nbd: NbdService | None) -> Iterator[Check]:
    """Judge whether a node that let us in reaches the exports."""
    if nbd is None:
        return
    subject = Subject(exam.node.name)
    if nbd.socket is not None:
        yield _socket(subject, exam, nbd.socket)
        return
    place = f"{nbd.address} port {nbd.port}"
    found = came(exam.probe)
    if isinstance(found, MinicloudError):
        yield subject.failed("exports", str(found), "give the user a shell on the node")
        return
    reach = _reach(found, nbd)
    if reach is Reach.OPEN:
        yield subject.good("exports", f"the node reaches {place}")
    elif reach is Reach.UNKNOWN:
        yield _untried(subject, "exports", place)
    else:
        yield subject.failed(
            "exports", f"the node cannot reach the exports at {place}: {reach}",
            _exports_remedy(reach, nbd),
        )  # fmt: skip


def reaches_exports(exam: Exam, nbd: NbdService) -> bool:
    """Whether a guest on the node could have its disk."""
    if nbd.socket is not None:
        return exam.nbd is True
    return isinstance(exam.probe, Probe) and _reach(exam.probe, nbd) is Reach.OPEN


def _reach(probe: Probe, nbd: NbdService) -> Reach:
    address: Address = (nbd.address, nbd.port)
    return probe.addresses.get(address, Reach.UNKNOWN)


def _exports_remedy(reach: Reach, nbd: NbdService) -> str:
    if reach is Reach.REFUSED:
        return f"start nbdserve with --bind {nbd.address} --port {nbd.port}, or correct [nbd]"
    if reach is Reach.NO_NAME:
        return "an `address` in [nbd] that every node knows"
    return f"let TCP port {nbd.port} through to it, or correct `address` in [nbd]"


def _socket(subject: Subject, exam: Exam, path: str) -> Check:
    match came(exam.nbd):
        case MinicloudError() as error:
            return subject.failed(
                "exports", f"the exports' socket {path} cannot be spoken to: {error}",
                f"start nbdserve on the node with --unix {path}",
            )  # fmt: skip
        case True:
            return subject.good("exports", f"an NBD server answers at {path}")
    return subject.failed(
        "exports", f"what listens at {path} is no NBD server", "correct `socket` in [nbd]"
    )


def check_migration(exam: Exam, inventory: Inventory) -> Iterator[Check]:
    """Judge the ways from a node that let us in to the others that did."""
    subject = Subject(exam.node.name)
    if inventory.nbd is not None and inventory.nbd.socket is not None:
        yield subject.skipped("migration", "guests cannot leave a node whose exports are its own")
        return
    if not exam.migration:
        yield subject.skipped("migration", "there is no other node to try it with")
    for name, found in exam.migration.items():
        yield _way(subject, inventory.nodes[name], came(found))


def _way(subject: Subject, target: Node, found: Probe | MinicloudError) -> Check:
    check = f"migration to {target.name}"
    address: Address = (address_of(target), MIGRATION_PORT)
    place = f"{address[0]} port {MIGRATION_PORT}"
    if isinstance(found, MinicloudError):
        return subject.warning(check, str(found), "give more with --timeout")
    reach = found.addresses.get(address, Reach.UNKNOWN)
    if reach in _ANSWERS:
        return subject.good(check, f"the node reaches {place}")
    if reach is Reach.UNKNOWN:
        return _untried(subject, check, place)
    remedy = _FIREWALL.format(target.name)
    return subject.failed(check, f"the node cannot reach {place}: {reach}", remedy)


def _untried(subject: Subject, check: str, place: str) -> Check:
    return subject.warning(
        check, f"the node has no bash, python3 or nc to try {place} with", "install one of them"
    )
