"""One guest on its way to another node, until it is there or certain to be where it was.

Whatever ends it early, an error, its time or the operator, the guest goes on running on the node it
was to leave: libvirt gives it up there only when it runs on the other. What is told afterwards was
looked for on both, not inferred.
"""

import asyncio
import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from minicloud.commands.context import Context
from minicloud.commands.ends import Leaver, Prospect
from minicloud.commands.handover import handed_over, shared_exports
from minicloud.commands.records import keep_record
from minicloud.errors import MinicloudError, NodeError, Reason
from minicloud.hypervisor.domains import resume, standing
from minicloud.hypervisor.driver import Hypervisor
from minicloud.hypervisor.migration import (
    Job,
    Move,
    Moved,
    abort_job,
    clear_half,
    migrate,
    read_job,
)
from minicloud.model.guest import GuestState
from minicloud.model.inventory import Node
from minicloud.moving.probe import address_of
from minicloud.moving.whereabouts import whereabouts

__all__ = ["Relocation", "Terms", "relocate"]

_LOOK: Final = 0.25  # seconds between looks how far it is
_LOOKING: Final = 5.0  # seconds such a look may take
_ENDING: Final = 3.0  # seconds from an abort to the end, before the connections are cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How a guest is to move.

    Attributes:
        end: when it is given up, in the loop's time; None never.
        bandwidth: most bytes a second, or None.
        tls: encrypt its memory on the way.
    """

    end: float | None = None
    bandwidth: int | None = None
    tls: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Relocation:
    """What came of it.

    Attributes:
        moved: how it went; None where the guest was not moved.
        error: why not, and where it is; "" where it was.
        is_interrupted: the operator ended it.
        note: what is to be told all the same, or "".
    """

    moved: Moved | None = None
    error: str = ""
    is_interrupted: bool = False
    note: str = ""


async def relocate(
    context: Context, prospect: Prospect, terms: Terms, on_job: Callable[[Job], None]
) -> Relocation:
    """Move a guest whose prospect has no problem.

    Being cancelled ends the move, not this function: it returns once it knows where the guest is.
    """
    transfer = _Transfer(context, prospect, terms, on_job)
    task = asyncio.create_task(
        _carry_out(context, prospect, transfer), name=f"move {prospect.leaver.guest.name}"
    )
    is_interrupted = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            is_interrupted = True
            transfer.stop("it was interrupted")
    return replace(task.result(), is_interrupted=is_interrupted)


async def _carry_out(context: Context, prospect: Prospect, transfer: "_Transfer") -> Relocation:
    exports = shared_exports(prospect.leaver.definition, context.inventory.nbd)
    moved: Moved | None = None
    error = ""
    try:
        async with handed_over(context.storage, exports):
            moved = await transfer.run()
    except MinicloudError as exc:
        error = transfer.why_stopped or str(exc)
    if moved is None:
        where = await _whereabouts(context, prospect.leaver, prospect.target)
        return Relocation(error=f"{error}; {where}")
    # an error beside it is of the handover, which ends by itself
    note = await keep_record(context, prospect.leaver, prospect.target.name)
    return Relocation(moved=moved, note=note or error)


class _Transfer:
    """The call that moves the guest, watched from beside; ended by its time, or by `stop`.

    Attributes:
        why_stopped: what ended it early, or "".
    """

    def __init__(
        self, context: Context, prospect: Prospect, terms: Terms, on_job: Callable[[Job], None]
    ) -> None:
        self.why_stopped = ""
        self._cluster = context.cluster
        self._guest = prospect.leaver.guest
        self._target = prospect.target
        self._end = terms.end
        self._on_job = on_job
        self._stopped = asyncio.Event()
        self._move = Move(
            uuid=self._guest.uuid,
            address=address_of(self._target),
            is_active=self._guest.is_active,
            is_persistent=self._guest.is_persistent,
            bandwidth=terms.bandwidth,
            tls=terms.tls,
        )

    def stop(self, why: str) -> None:
        """Have it ended; the first reason counts."""
        self.why_stopped = self.why_stopped or why
        self._stopped.set()

    async def run(self) -> Moved:
        """Move the guest.

        Raises:
            NodeError: it was not moved.
        """
        source = await self._cluster.hypervisor(self._guest.node)
        target = await self._cluster.hypervisor(self._target.name)
        moving = asyncio.create_task(
            source.call_with(target, lambda here, there: migrate(here, there, self._move)),
            name=f"migrate {self._guest.name}",
        )
        timer = self._timer()
        stopped = asyncio.create_task(self._stopped.wait())
        try:
            await self._watch(source, moving, stopped)
            if not moving.done():
                await self._abort(source, moving)
        finally:
            stopped.cancel()
            if timer is not None:
                timer.cancel()
        try:
            return await moving
        except asyncio.CancelledError:  # by `_abort`, nobody else knows it
            raise NodeError(Reason.LIBVIRT_HUNG, "libvirtd did not end it") from None

    def _timer(self) -> asyncio.TimerHandle | None:
        if self._end is None:
            return None
        why = "its time was over, and it was given up (--timeout)"
        return asyncio.get_running_loop().call_at(self._end, self.stop, why)

    async def _watch(
        self, hypervisor: Hypervisor, moving: "asyncio.Task[Moved]", stopped: "asyncio.Task[bool]"
    ) -> None:
        """Tell how far it is until it is done or stopped; a look is short, so it may end first."""
        tasks = (moving, stopped)
        while not any(task.done() for task in tasks):
            await asyncio.wait(tasks, timeout=_LOOK, return_when=asyncio.FIRST_COMPLETED)
            if any(task.done() for task in tasks):
                return
            with contextlib.suppress(NodeError):  # the move itself will say what is wrong
                job = await hypervisor.call(
                    lambda connection: read_job(connection, self._guest.uuid), deadline=_LOOKING
                )
                if job is not None:
                    self._on_job(job)

    async def _abort(self, hypervisor: Hypervisor, moving: "asyncio.Task[Moved]") -> None:
        """End the move: politely, then by taking its connections away."""
        with contextlib.suppress(NodeError):
            await hypervisor.call(
                lambda connection: abort_job(connection, self._guest.uuid), deadline=_ENDING
            )
        await asyncio.wait([moving], timeout=_ENDING)
        if not moving.done():
            moving.cancel()  # libvirt then ends it on both nodes
            await asyncio.wait([moving], timeout=_ENDING)


async def _whereabouts(context: Context, leaver: Leaver, target: Node) -> str:
    """Look where the guest is, and mend what the failed move has left."""
    guest = leaver.guest
    if not guest.is_active:
        return f"its definition is still on {guest.node}"
    here, there = await asyncio.gather(
        _state(context, guest.uuid, guest.node), _state(context, guest.uuid, target.name)
    )
    found = whereabouts(guest.name, guest.node, target.name, here, there)
    if found.is_here and there is GuestState.PAUSED:
        with contextlib.suppress(NodeError):  # libvirt there clears it by itself before long
            hypervisor = await context.cluster.hypervisor(target.name)
            await hypervisor.call(functools.partial(clear_half, uuid=guest.uuid))
        there = await _state(context, guest.uuid, target.name)
        found = whereabouts(guest.name, guest.node, target.name, here, there)
    if found.may_go_on:
        try:
            hypervisor = await context.cluster.hypervisor(guest.node)
            await hypervisor.call(functools.partial(resume, uuid=guest.uuid))
        except NodeError as exc:
            return f"{guest.name} is paused on {guest.node}, and does not go on: {exc.message}"
    return found.text


async def _state(context: Context, uuid: str, node: str) -> GuestState | None:
    """Ask what a guest does on a node; a connection that was cut is made anew."""
    await context.cluster.forget(node)
    with contextlib.suppress(NodeError):
        hypervisor = await context.cluster.hypervisor(node)
        found = await hypervisor.call(functools.partial(standing, uuid=uuid), deadline=_LOOKING)
        return GuestState.SHUTOFF if found is None else found.state
    return None
