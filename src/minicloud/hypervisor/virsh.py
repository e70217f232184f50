"""A node's facts by `virsh` over ssh, for where libvirt itself cannot be spoken to.

It is slower and knows no more than it prints, so that it serves `status` and `list` alone. One
virsh asks for everything but what minicloud wrote into the guests; a second one asks for that.
What virsh prints is read here without I/O; virsh's own `echo` puts marks between the answers.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Final

from minicloud.domain.metadata import NAMESPACE, read_origin
from minicloud.errors import NodeError, Reason
from minicloud.hypervisor.facts import with_namespace
from minicloud.hypervisor.states import ACTIVE, reason_of, state_of
from minicloud.model.guest import Guest, NodeFacts, Origin
from minicloud.ssh.session import Session

__all__ = ["facts_by_virsh", "parse_facts", "parse_origins"]

_KIB: Final = 1 << 10
_MARK: Final = "=minicloud="
_QUESTIONS: Final = {
    "hostname": "hostname",
    "nodeinfo": "nodeinfo",
    "memory": "nodememstats",
    "version": "version",
    "kept": "list --all --persistent --uuid",
    "names": "list --all --uuid --name",
    "stats": "domstats --raw --nowait --state --balloon --vcpu",
}
_SECTION: Final = re.compile(rf"{_MARK}([\w-]+)=")
_DOMAIN: Final = re.compile(r"Domain: '(.*)'")
_HINT: Final = "install libvirt-clients on the node"


async def facts_by_virsh(
    session: Session, *, deadline: float | None, with_origin: bool = True
) -> NodeFacts:
    """Ask virsh on the node.

    Args:
        session: to the node.
        deadline: seconds for each of the two commands.
        with_origin: also what minicloud wrote into the guests.

    Raises:
        NodeError: virsh is not there, or what it says of itself.
    """
    facts = parse_facts(await _answers(session, _QUESTIONS, deadline), session.node.name)
    if not with_origin or not facts.guests:
        return facts
    questions = {guest.uuid: f"metadata {guest.uuid} {NAMESPACE}" for guest in facts.guests}
    origins = parse_origins(await _answers(session, questions, deadline))
    guests = [dataclasses.replace(one, origin=origins.get(one.uuid)) for one in facts.guests]
    return dataclasses.replace(facts, guests=tuple(guests))


def parse_facts(text: str, node: str) -> NodeFacts:
    """Read what virsh answered to all questions.

    Args:
        text: with a mark before each answer.
        node: our name of it.

    Raises:
        NodeError: it makes no sense.
    """
    answers = _split(text)
    try:
        info = _table(answers["nodeinfo"])
        names = dict(line.split(" ", 1) for line in answers["names"].splitlines() if line.strip())
        memory = {key: _kibibytes(value) for key, value in _table(answers["memory"]).items()}
        return NodeFacts(
            hostname=answers["hostname"].strip(),
            cpus=int(info["CPU(s)"]),
            memory=memory.get("total") or _kibibytes(info["Memory size"]),
            memory_available=sum(memory.get(key, 0) for key in ("free", "buffers", "cached"))
            or None,
            libvirt=_version(answers["version"], "Using library: libvirt") or (0, 0, 0),
            qemu=_version(answers["version"], "Running hypervisor: QEMU"),
            guests=_guests(answers["stats"], names, frozenset(answers["kept"].split()), node),
        )
    except (KeyError, ValueError) as exc:
        raise NodeError(
            Reason.LIBVIRT, f"virsh on the node answered what cannot be read: {exc!r}", _HINT
        ) from exc


def parse_origins(text: str) -> dict[str, Origin]:
    """Read what virsh answered about each guest's metadata, by the guests' UUIDs."""
    found = {uuid: read_origin(with_namespace(xml)) for uuid, xml in _split(text).items()}
    return {uuid: origin for uuid, origin in found.items() if origin is not None}


async def _answers(session: Session, questions: Mapping[str, str], deadline: float | None) -> str:
    asked = "; ".join(f"echo {_MARK}{key}=; {words}" for key, words in questions.items())
    argv = ["env", "LC_ALL=C", "virsh", "-q", "-c", "qemu:///system", asked]
    done = await session.run(argv, deadline=deadline)
    said = " ".join(done.stderr.decode(errors="replace").split())
    if done.status == _NO_COMMAND:
        raise NodeError(Reason.TOOL, "there is no virsh on the node", _HINT)
    text = done.stdout.decode(errors="replace")
    if _MARK not in text:
        raise _refusal(said or f"virsh ended with status {done.status}")
    return text


def _refusal(said: str) -> NodeError:
    """Say why virsh could not connect; its words are libvirt's."""
    if "No such file" in said or "Connection refused" in said:
        return NodeError(
            Reason.NO_LIBVIRTD, f"libvirtd is not running: {said}",
            "on the node: systemctl enable --now libvirtd (or virtqemud.socket)",
        )  # fmt: skip
    if "ermission denied" in said or "authentication" in said:
        return NodeError(
            Reason.LIBVIRT_PERMISSION, said, "add the user to the group libvirt on the node"
        )
    return NodeError(Reason.LIBVIRT, said)


def _split(text: str) -> dict[str, str]:
    """Part the answers; virsh's echo ends no line, so a mark stands before the first one."""
    _, *parts = _SECTION.split(text)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _table(text: str) -> dict[str, str]:
    """Read `key : value` lines."""
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _kibibytes(text: str) -> int:
    number, unit = text.split()
    if unit != "KiB":
        raise ValueError(text)
    return int(number) * _KIB


def _version(text: str, what: str) -> tuple[int, int, int] | None:
    match = re.search(rf"{re.escape(what)} (\d+)\.(\d+)\.(\d+)", text)
    return None if match is None else (int(match[1]), int(match[2]), int(match[3]))


def _guests(
    text: str, names: Mapping[str, str], kept: frozenset[str], node: str
) -> tuple[Guest, ...]:
    stats: dict[str, dict[str, int]] = {}
    current: dict[str, int] = {}
    for line in text.splitlines():
        if match := _DOMAIN.fullmatch(line):
            current = stats.setdefault(match[1], {})
        elif "=" in line:
            key, _, value = line.strip().partition("=")
            current[key] = int(value) if value.isdigit() else 0
    guests = [
        _guest(name, uuid, stats.get(name, {}), is_persistent=uuid in kept, node=node)
        for uuid, name in names.items()
    ]
    return tuple(sorted(guests, key=lambda guest: guest.name))


def _guest(
    name: str, uuid: str, stats: Mapping[str, int], *, is_persistent: bool, node: str
) -> Guest:
    state = state_of(stats.get("state.state", 0))
    return Guest(
        name=name,
        uuid=uuid,
        node=node,
        state=state,
        reason=reason_of(state, stats.get("state.reason", 0)),
        vcpus=stats.get("vcpu.current", stats.get("vcpu.maximum", 0)),
        memory=stats.get("balloon.maximum", 0) * _KIB,
        is_active=state in ACTIVE,
        is_persistent=is_persistent,
    )


_NO_COMMAND: Final = 127  # of the shell, and of env(1)
