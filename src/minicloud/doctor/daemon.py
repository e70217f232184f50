"""libvirt of a node: its socket, the way to it, itself, and what its version lets us do. Pure."""

from collections.abc import Iterator

from minicloud.doctor.check import Check, Status, Subject, tidied
from minicloud.doctor.exam import Exam, came
from minicloud.errors import MinicloudError, NodeError
from minicloud.hypervisor.abilities import Abilities
from minicloud.hypervisor.sockets import Sockets

__all__ = ["check_daemon"]

Version = tuple[int, int, int]


def check_daemon(exam: Exam) -> Iterator[Check]:
    """Judge what there is of libvirt on a node that let us in."""
    subject = Subject(exam.node.name)
    on_the_way = list(_sockets(subject, exam))
    yield from on_the_way
    failed = [one.name for one in on_the_way if one.status is Status.FAILED]
    if failed and not exam.is_usable:
        for name in ("libvirt", "qemu", "reconnect"):
            yield subject.skipped(name, f"{failed[0]} failed")
        return
    match came(exam.abilities):
        case Abilities() as abilities:
            yield from _abilities(subject, abilities)
        case MinicloudError() as error:
            yield subject.failed("libvirt", *_told(error))
            yield subject.skipped("qemu", "libvirt failed")
            yield subject.skipped("reconnect", "libvirt failed")


def _sockets(subject: Subject, exam: Exam) -> Iterator[Check]:
    if exam.opened:
        yield subject.good("socket", exam.opened)
        yield subject.good("forwarding", "sshd forwards to it")
        return
    match came(exam.sockets):
        case Sockets() as sockets:
            yield from _unopened(subject, sockets)
        case MinicloudError() as error:
            yield subject.failed("socket", *_told(error))
            yield subject.skipped("forwarding", "socket failed")


def _unopened(subject: Subject, sockets: Sockets) -> Iterator[Check]:
    """Judge by what the node itself says of its sockets why sshd opened none."""
    usable = sockets.usable
    if usable is None:
        yield subject.failed("socket", *_told(sockets.error()))
        yield subject.skipped("forwarding", "socket failed")
        return
    yield subject.good("socket", usable.path)
    helpers = sorted(sockets.tools & {"virt-ssh-helper", "socat", "nc"}, key=_rank)
    if helpers:
        yield subject.warning(
            "forwarding", f"sshd forwards no Unix sockets; {helpers[0]} is used, which is slower",
            "AllowStreamLocalForwarding yes in sshd_config",
        )  # fmt: skip
    else:
        yield subject.failed("forwarding", *_told(sockets.error()))


def _rank(helper: str) -> int:
    return ("virt-ssh-helper", "socat", "nc").index(helper)


def _abilities(subject: Subject, abilities: Abilities) -> Iterator[Check]:
    facts = abilities.facts
    yield subject.good("libvirt", f"{_dotted(facts.libvirt)}, of {facts.hostname}")
    if facts.qemu is None:
        yield subject.failed(
            "qemu", "libvirt finds no emulator", "install qemu-system-x86 (or of its architecture)"
        )
        yield subject.skipped("reconnect", "qemu failed")
        return
    yield subject.good("qemu", _dotted(facts.qemu))
    yield _reconnect(subject, abilities)


def _reconnect(subject: Subject, abilities: Abilities) -> Check:
    libvirt = f"libvirt {_dotted(abilities.facts.libvirt)}"
    if abilities.reconnects:
        return subject.good("reconnect", "guests wait for an export server that is away")
    if abilities.reconnects is None:
        return subject.warning("reconnect", f"{libvirt} does not say whether it knows <reconnect>")
    return subject.warning(
        "reconnect",
        f"{libvirt} drops <reconnect>: guests pause while the export server is away",
        "minicloud resume GUEST once it is back; a newer libvirt needs none",
    )


def _told(error: MinicloudError) -> tuple[str, str]:
    if isinstance(error, NodeError):
        return error.message, error.remedy or "see its log on the node: journalctl -u libvirtd"
    return tidied(str(error))


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))
