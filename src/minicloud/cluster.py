"""The nodes of a run: connected once each, asked in parallel, each within its time.

A node that is off, silent or broken is a row with its reason, and costs the others nothing. At the
end of the whole time every node has a row, whatever it was doing; nothing here waits for a thread
or a socket that is stuck.

Invariant: a node has one ssh connection and one to libvirt, made when they are first asked for.
How that went is kept for the run, until `forget`.
"""

import asyncio
import functools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from minicloud.deadline import within
from minicloud.errors import MinicloudError, NodeError, Reason, UsageError
from minicloud.hypervisor.binding import preload
from minicloud.hypervisor.driver import Hypervisor
from minicloud.hypervisor.facts import read_facts
from minicloud.hypervisor.virsh import facts_by_virsh
from minicloud.model.guest import Guest, NodeFacts
from minicloud.model.inventory import Inventory, Node
from minicloud.model.outcome import Row
from minicloud.ssh.connecting import Connector
from minicloud.ssh.hostkeys import HostKeys
from minicloud.ssh.session import Session
from minicloud.tasks import Shared
from nbdserve.params import closest

__all__ = ["Cluster", "Patience"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[Node], Awaitable[T]]

# Beyond the whole time: what waits below ends at its end, and says better why than we could.
_GRACE: Final = 0.3
_FAREWELL: Final = 1.5  # seconds in which all connections are closed, or dropped

# Where virsh on the node may do what libvirt here cannot.
_BY_VIRSH: Final = frozenset({Reason.TOOL, Reason.NO_FORWARDING})


@dataclass(frozen=True, slots=True)
class Patience:
    """How long is waited, in seconds, and for how many at once.

    Attributes:
        connect: for a name and TCP; ssh_config's ConnectTimeout goes before.
        login: from there until the user is in.
        command: for one call to libvirt or one command.
        whole: for all nodes together.
        fan_out: logins at once.
    """

    connect: float = 3
    login: float = 5
    command: float = 10
    whole: float | None = 30
    fan_out: int = 32


class Cluster:
    """The nodes of an inventory; an async context manager.

    Args:
        inventory: with the nodes.
        patience: with them.
        keys: known host keys; None is what the environment says.
    """

    def __init__(
        self, inventory: Inventory, patience: Patience, keys: HostKeys | None = None
    ) -> None:
        self.inventory = inventory
        self.patience = patience
        self._connector = Connector(
            ssh_config=inventory.ssh_config,
            keys=keys,
            connect=patience.connect,
            login=patience.login,
            fan_out=patience.fan_out,
        )
        self._sessions: Shared[str, Session] = Shared()
        self._hypervisors: Shared[str, Hypervisor] = Shared()
        self._facts: Shared[tuple[str, bool], NodeFacts] = Shared()
        self._notes: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def node(self, name: str) -> Node:
        """Return a node of the inventory.

        Raises:
            UsageError: there is none of this name.
        """
        try:
            return self.inventory.nodes[name]
        except KeyError:
            raise UsageError(_unknown(name, "node", self.inventory.nodes)) from None

    def nodes(self, only: Sequence[str] = ()) -> list[Node]:
        """Return the nodes of these names, or all of them, in the order of the inventory.

        Raises:
            UsageError: there is none of one of the names.
        """
        chosen = {self.node(name).name for name in only}
        return [node for node in self.inventory.nodes.values() if not only or node.name in chosen]

    async def session(self, name: str) -> Session:
        """Return the ssh connection to a node.

        Raises:
            NodeError: it cannot be had.
        """
        return await self.session_to(self.node(name))

    async def session_to(self, node: Node) -> Session:
        """Return the ssh connection to a machine that need not be in the inventory.

        Raises:
            NodeError: it cannot be had.
        """

        async def connected() -> Session:
            session = await self._connector.connect(node)
            if session.note:
                self._notes[node.name] = session.note
            return session

        session = await self._sessions.get(node.name, connected)
        if session.is_lost:
            raise NodeError(Reason.SSH_LOST, "the ssh connection was lost", "run it again")
        return session

    async def hypervisor(self, name: str) -> Hypervisor:
        """Return libvirt of a node; it is connected by the first call.

        Raises:
            NodeError: the node cannot be had.
        """

        async def made() -> Hypervisor:
            return Hypervisor(await self.session(name))

        return await self._hypervisors.get(name, made)

    async def facts(self, name: str, *, with_origin: bool = True) -> NodeFacts:
        """Return what a node says of itself; asked once a run.

        Where libvirt cannot be spoken to, because libvirt-python is missing here or sshd forwards
        nothing, virsh on the node is asked.

        Args:
            name: of the node.
            with_origin: also what minicloud wrote into the guests, a call a guest.

        Raises:
            NodeError: it says nothing.
        """
        if not with_origin and (known := self._facts.peek((name, True))) is not None:
            return known
        made = functools.partial(self._ask_facts, name, with_origin=with_origin)
        return await self._facts.get((name, with_origin), made)

    async def forget(self, name: str) -> None:
        """Ask a node anew from now on: its facts, and how connecting went where it failed.

        A connection that works is kept; calls that are under way on it go on.
        """
        for with_origin in (False, True):
            self._facts.forget((name, with_origin))
        self._notes.pop(name, None)
        session = self._sessions.peek(name)
        if session is not None and not session.is_lost:
            return
        if (hypervisor := self._hypervisors.forget(name)) is not None:
            hypervisor.cut()
        if (lost := self._sessions.forget(name)) is not None:
            lost.cut()

    async def each(
        self, work: Work[T], nodes: Sequence[Node], *, whole: float | None = None
    ) -> AsyncIterator[Row[T]]:
        """Do some work for each node at once and give its rows as they are done.

        Args:
            work: for one node; its NodeError is that node's row. What else it raises that is ours
                ends all; a bug is a row too.
            nodes: to work for.
            whole: seconds for all of them, from now; None is the patience's.

        Raises:
            MinicloudError: the operator's or the export server's, from `work`.
        """
        whole = self.patience.whole if whole is None else whole
        end = None if whole is None else time.monotonic() + whole + _GRACE
        with within(whole):
            tasks = {
                asyncio.create_task(self._row(work, node), name=f"node {node.name}"): node
                for node in nodes
            }
        waiting = set(tasks)
        try:
            while waiting:
                left = None if end is None else max(0.0, end - time.monotonic())
                done, waiting = await asyncio.wait(
                    waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    yield task.result()
                if not done:
                    break
            for task in waiting:
                yield _late(tasks[task], whole)
        finally:
            await _drop(tasks)

    async def gather(
        self, work: Work[T], nodes: Sequence[Node], *, whole: float | None = None
    ) -> list[Row[T]]:
        """Do some work for each node at once; rows in the order of the nodes."""
        rows = {row.node: row async for row in self.each(work, nodes, whole=whole)}
        return [rows[node.name] for node in nodes]

    async def find(self, guest: str) -> Guest:
        """Find a guest by its name.

        Args:
            guest: `NAME`, sought on all nodes, or `NODE:NAME`, which asks that node alone.

        Raises:
            UsageError: there is no such guest, or several.
            NodeError: it is on none of the nodes that answer, and some do not.
        """
        place, colon, name = guest.rpartition(":")
        nodes = self.nodes([place] if colon else [])
        rows = await self.gather(lambda node: self.facts(node.name), nodes)
        all_guests = [one for row in rows if row.value is not None for one in row.value.guests]
        found = [one for one in all_guests if one.name == name]
        if len(found) == 1:
            return found[0]
        if found:
            places = ", ".join(f"{one.node}:{one.name}" for one in found)
            raise UsageError(f"guest {name} is on several nodes; say which: {places}")
        if failed := [row for row in rows if row.error is not None]:
            raise _not_found(name, failed)
        raise UsageError(_unknown(name, "guest", [one.name for one in all_guests]))

    async def close(self) -> None:
        """End every connection; what does not end by itself is dropped."""
        hypervisors = await self._hypervisors.end()
        sessions = await self._sessions.end()
        try:
            async with asyncio.timeout(_FAREWELL):
                await asyncio.gather(*(one.close() for one in hypervisors))
                await asyncio.gather(*(one.close() for one in sessions))
                await self._connector.close()
        except TimeoutError:
            for hypervisor in hypervisors:
                hypervisor.cut()
            for session in sessions:
                session.cut()

    async def _ask_facts(self, name: str, *, with_origin: bool) -> NodeFacts:
        preload()
        session = await self.session(name)
        try:
            hypervisor = await self.hypervisor(name)
            return await hypervisor.call(
                lambda connection: read_facts(connection, name, with_origin=with_origin),
                deadline=self.patience.command,
            )
        except NodeError as exc:
            if exc.reason not in _BY_VIRSH:
                raise
            facts = await self._facts_by_virsh(session, exc, with_origin=with_origin)
            self._notes[name] = "by virsh"
            return facts

    async def _facts_by_virsh(
        self, session: Session, why: NodeError, *, with_origin: bool
    ) -> NodeFacts:
        try:
            return await facts_by_virsh(
                session, deadline=self.patience.command, with_origin=with_origin
            )
        except NodeError as exc:
            if why.reason is not Reason.TOOL:
                raise why from None  # what keeps libvirt away is what is to be mended
            if exc.reason is not Reason.TOOL:
                raise
            raise NodeError(
                Reason.TOOL, f"{why.message}, and {exc.message}", f"{why.remedy}, or {exc.remedy}"
            ) from None

    async def _row(self, work: Work[T], node: Node) -> Row[T]:
        begun = time.monotonic()
        value: T | None = None
        error: NodeError | None = None
        try:
            value = await work(node)
        except NodeError as exc:
            error = exc
        except MinicloudError:
            raise
        except Exception as exc:  # a bug with one node must not hide the others
            logger.exception("unexpected node=%s", node.name)
            error = NodeError(Reason.COMMAND, f"{type(exc).__name__}: {exc}", "a bug: report it")
        seconds = time.monotonic() - begun
        return Row(node.name, value, error, seconds, self._notes.get(node.name, ""))


async def _drop(tasks: Mapping[asyncio.Task[Any], Node]) -> None:
    """Cancel what is under way, and see that it ends; one that does not is left to itself."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_GRACE)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()  # it was another's turn to be raised


def _late(node: Node, whole: float | None) -> Row[Any]:
    error = NodeError(
        Reason.DEADLINE, f"not done within the {whole:g} s for all", "give more with --timeout"
    )
    return Row(node.name, None, error, whole or 0.0)


def _not_found(name: str, failed: Sequence[Row[Any]]) -> NodeError:
    errors = [(row.node, row.error) for row in failed if row.error is not None]
    why = "; ".join(f"{node}: {error.message}" for node, error in errors)
    return NodeError(
        errors[0][1].reason,
        f"guest {name} is on none of the nodes that answer; not asked: {why}",
        errors[0][1].remedy,
    )


def _unknown(name: str, what: str, known: Collection[str]) -> str:
    return f"there is no {what} {name!r}" + (f"; {closest(name, known)}" if known else "")
