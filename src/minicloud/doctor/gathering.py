"""Looking: every node at once, and what each says noted as it comes.

Nothing here raises for what is wrong with a node: it is noted in the node's exam, and judged
elsewhere. What has not come when the time is over stays unknown.
"""

import asyncio
import contextlib
import functools
import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeVar

from minicloud.booting.virttype import boots_a_guest, virt_type_of
from minicloud.cluster import Cluster
from minicloud.deadline import time_left
from minicloud.doctor.exam import Clock, Exam
from minicloud.doctor.machine import kvm_problem
from minicloud.doctor.reach import bridges, reaches_exports, wanted
from minicloud.doctor.survey import Survey, parse_survey, survey_command
from minicloud.doctor.tlsfiles import (
    AUTHORITY,
    certificates_command,
    parse_certificates,
)
from minicloud.doctor.tlstrial import Trial, try_tls
from minicloud.errors import MinicloudError, NodeError, Reason, StorageError
from minicloud.hypervisor.abilities import Abilities, read_abilities
from minicloud.hypervisor.sockets import candidates, inspection, parse_sockets
from minicloud.model.inventory import Inventory, NbdService, Node, VirtType
from minicloud.moving.probe import MIGRATION_PORT, Probe, address_of, parse_probe, probe_command
from minicloud.ssh.session import Session
from minicloud.storage.service import Storage

__all__ = ["Told", "examine", "examine_ways", "is_worth_booting", "server_status"]

T = TypeVar("T")

_PROBING: Final = 12.0  # seconds; an address that does not answer takes 3
_GREETING: Final = b"NBDMAGIC"  # what an NBD server says first: proto.md, "Handshake"


Told: TypeAlias = Mapping[str, Any] | MinicloudError
"""What an nbdserve says of itself, or why it does not."""


async def examine(cluster: Cluster, storage: Storage, exam: Exam) -> None:
    """Look at one node, as far as it lets us.

    Where guests are to run under KVM and nothing speaks against it, one is booted for a moment.

    Args:
        cluster: it is of.
        storage: serves its guests.
        exam: to fill in.
    """
    try:
        session = await cluster.session(exam.node.name)
    except MinicloudError as exc:
        exam.access = exc
        return
    exam.access, exam.note = session.access, session.note
    inventory = cluster.inventory
    await asyncio.gather(
        _look_around(session, exam),
        _find_socket(session, exam),
        _ask_libvirt(cluster, exam),
        _reach_out(session, exam, inventory),
        _look_at_tls(session, exam, inventory.nbd),
    )
    if is_worth_booting(exam, inventory.nbd):
        exam.boots = await _noted(_boots(session, cluster, storage))


def is_worth_booting(exam: Exam, nbd: NbdService | None) -> bool:
    """Whether a guest can be tried under KVM, and would prove something.

    Without the exports, or without an emulator, it could only prove that they are missing.
    """
    survey, abilities = exam.survey, exam.abilities
    return (
        exam.node.virt_type is not VirtType.QEMU
        and isinstance(survey, Survey)
        and survey.arch == "x86_64"  # the guest's code is
        and kvm_problem(survey) is None
        and isinstance(abilities, Abilities)
        and abilities.facts.qemu is not None
        and nbd is not None
        and reaches_exports(exam, nbd)
    )


async def _boots(session: Session, cluster: Cluster, storage: Storage) -> bool:
    node = session.node
    hypervisor = await cluster.hypervisor(node.name)
    if node.virt_type is VirtType.KVM:
        return await boots_a_guest(hypervisor, storage, node.name, VirtType.KVM)
    return await virt_type_of(session, hypervisor, storage) is VirtType.KVM


async def examine_ways(cluster: Cluster, exam: Exam, targets: Sequence[Node]) -> None:
    """Try the ways from a node that let us in to others; all at once, as far as ssh allows."""
    exam.migration = {target.name: None for target in targets}
    session = await cluster.session(exam.node.name)

    async def attempt(target: Node) -> None:
        probing = _probe(session, probe_command([(address_of(target), MIGRATION_PORT)]))
        exam.migration[target.name] = await _noted(probing)

    await asyncio.gather(*map(attempt, targets))


async def server_status(storage: Storage) -> Told:
    """Ask nbdserve for all it says of itself."""
    seconds = time_left(None)
    try:
        async with asyncio.timeout(seconds):
            return await storage.status()
    except TimeoutError:
        return StorageError(
            "unreachable", f"nbdserve did not answer within {seconds:g} s; see its log"
        )
    except MinicloudError as exc:
        return exc


async def _look_around(session: Session, exam: Exam) -> None:
    asked = time.time()
    done = await _noted(session.run(survey_command()))
    if isinstance(done, MinicloudError):
        exam.survey = done
        return
    exam.clock = Clock(asked, time.time())
    exam.survey = parse_survey(done.stdout.decode(errors="replace"))


async def _find_socket(session: Session, exam: Exam) -> None:
    """See which of libvirt's sockets sshd forwards; if none, what the node says of them."""
    paths = candidates(exam.node.libvirt_socket)
    for path in paths:
        opened = await _noted(session.open_unix(path))
        if not isinstance(opened, MinicloudError):
            opened[1].close()
            exam.opened = path
            return
    done = await _noted(session.run(inspection(paths)))
    if isinstance(done, MinicloudError):
        exam.sockets = done
        return
    sockets = parse_sockets(done.stdout.decode(errors="replace"))
    exam.sockets = sockets if sockets.sockets else _no_shell()


async def _ask_libvirt(cluster: Cluster, exam: Exam) -> None:
    name = exam.node.name
    work = functools.partial(read_abilities, node=name)

    async def ask() -> Any:
        hypervisor = await cluster.hypervisor(name)
        return await hypervisor.call(work, deadline=cluster.patience.command)

    exam.abilities = await _noted(ask())


async def _reach_out(session: Session, exam: Exam, inventory: Inventory) -> None:
    """See whether the node reaches the exports, and has the bridges that are wanted."""
    nbd = inventory.nbd
    if nbd is not None and nbd.socket is not None:
        exam.nbd = await _noted(_greets(session, nbd.socket))
    addresses = [] if nbd is None or nbd.socket is not None else [(nbd.address, nbd.port)]
    command = probe_command(addresses, bridges(wanted(inventory)))
    exam.probe = await _noted(_probe(session, command))


async def _probe(session: Session, command: Sequence[str]) -> Probe:
    done = await session.run(command, deadline=_PROBING)
    return parse_probe(done.stdout.decode(errors="replace"))


async def _look_at_tls(session: Session, exam: Exam, nbd: NbdService | None) -> None:
    """See what the node has for TLS, and try it with the export server, by way of the node."""
    if nbd is None or not nbd.tls or nbd.socket is not None:
        return
    done = await _noted(session.run(certificates_command()))
    if isinstance(done, MinicloudError):
        exam.certificates = done
        return
    exam.certificates = parse_certificates(done.stdout.decode(errors="replace"))
    if authority := exam.certificates.files.get(AUTHORITY):
        exam.tls = await _noted(_tls(session, authority, nbd))


async def _tls(session: Session, authority: str, nbd: NbdService) -> Trial:
    reader, writer = await session.open_tcp(nbd.address, nbd.port)
    try:
        return await try_tls(reader, writer, nbd, authority)
    finally:
        writer.close()


async def _greets(session: Session, path: str) -> bool:
    """Whether an NBD server answers at a Unix socket of the node."""
    reader, writer = await session.open_unix(path)
    try:
        with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(time_left(3.0)):
                return await reader.readexactly(len(_GREETING)) == _GREETING
    finally:
        writer.close()
    return False


async def _noted(work: Awaitable[T]) -> T | MinicloudError:
    try:
        return await work
    except MinicloudError as exc:
        return exc


def _no_shell() -> NodeError:
    return NodeError(
        Reason.NO_FORWARDING,
        "sshd forwards to no socket of libvirt, and runs no shell that could say why",
        "AllowStreamLocalForwarding yes in sshd_config, for a user with a shell",
    )
