"""`minicloud boot`: make a guest from a template's image and start it, or leave nothing behind.

Everything that can be known to be wrong is said before anything is touched: options, files, the
name, the memory of the nodes. From then on each step is undone if a later one fails, or if the
command is interrupted. Once the guest runs it is the operator's: waiting for it changes nothing.
"""

import argparse
import asyncio
import contextlib
import getpass
import socket
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from minicloud.booting.launch import Making, make, start
from minicloud.booting.request import Event, Wait
from minicloud.booting.survey import check_free, check_room, choose, survey_of
from minicloud.booting.undo import Undo, unbroken
from minicloud.booting.virttype import virt_type_of
from minicloud.booting.waiting import Listening, wait_for_line, wait_for_ssh
from minicloud.commands.boot_options import Asked, add_arguments, read_options
from minicloud.commands.boot_outcome import Story, boot_outcome
from minicloud.commands.context import Context
from minicloud.customization.options import read_commands
from minicloud.customization.prepared import Prepared, prepare
from minicloud.customization.tool import Appliance
from minicloud.deadline import seconds_text
from minicloud.domain.metadata import public_image
from minicloud.domain.names import guest_export_name, overlay_path, seed_export_name
from minicloud.domain.plan import GuestOptions, GuestPlan, plan_guest, server_of
from minicloud.domain.xml import console_log, domain_xml
from minicloud.errors import NodeError, Reason, UsageError
from minicloud.model.guest import NodeFacts, Origin
from minicloud.model.inventory import Node, VirtType
from minicloud.model.view import Outcome
from minicloud.moving.record import Record, record_export
from minicloud.storage.service import Storage
from minicloud.storage.tables import guest_export, seed_export

__all__ = ["CHANGES", "HELP", "add_arguments", "run"]

HELP: Final = "start a new guest from a template's image"
CHANGES: Final = True


async def run(context: Context, arguments: argparse.Namespace) -> Outcome:
    """Make the guest."""
    begun = time.monotonic()
    asked = await read_options(context.inventory, arguments)
    if context.storage.nbd is None or not context.storage.is_per_node:
        await _check_free(context.storage, asked)
    story = await _surveyed(context, asked)
    storage = context.storage.at(story.node)
    if context.storage.is_per_node:
        await _check_free(storage, asked)
    prepared = await _prepared(context, story, storage)
    if context.dry_run:
        story.plan = _plan(story, storage, story.node.virt_type, "x86_64")
        return boot_outcome(story, is_dry=True, seconds=0.0)
    async with contextlib.AsyncExitStack() as stack:
        try:
            listening = await _launched(context, story, storage, stack, prepared)
        except NodeError as exc:
            if story.customized is not None and story.customized.failure is not None:
                raise  # it says where that was
            raise NodeError(exc.reason, f"{story.node.name}: {exc.message}", exc.remedy) from exc
        if asked.wait is not None:
            await _waited(context, story, asked.wait, listening, begun)
    return boot_outcome(story, is_dry=False, seconds=time.monotonic() - begun)


async def _check_free(storage: Storage, asked: Asked) -> None:
    check_free(asked.request.name, await storage.exports(), await storage.overlays())


async def _surveyed(context: Context, asked: Asked) -> Story:
    """Ask all nodes, and choose one."""
    context.report.step("asking the nodes")
    cluster = context.cluster

    async def facts(node: Node) -> NodeFacts:
        return await cluster.facts(node.name, with_origin=False)

    rows = await cluster.gather(facts, cluster.nodes())
    survey = survey_of(
        asked.request, rows, cluster.nodes(context.only if asked.node is None else [asked.node])
    )
    return Story(asked, survey, choose(survey.placement))


async def _prepared(context: Context, story: Story, storage: Storage) -> Prepared | None:
    """Find where the template's options of virt-customize can be applied, if it has some."""
    options = story.asked.request.template.customize
    if not options:
        return None
    assert storage.nbd is not None, "it has told its exports"
    commands = read_commands(options)
    context.report.step("looking for virt-customize")
    nodes = [story.node] if storage.is_per_node else None
    return await prepare(
        context.cluster, commands, Appliance(), server_of(storage.nbd), nodes=nodes
    )


async def _launched(
    context: Context,
    story: Story,
    storage: Storage,
    stack: contextlib.AsyncExitStack,
    prepared: Prepared | None,
) -> Listening | None:
    """Make the guest and let it go; return its console, which the stack closes, if it is wanted."""
    name, report = story.asked.request.name, context.report
    session = await context.cluster.session(story.node.name)
    hypervisor = await context.cluster.hypervisor(story.node.name)
    virt_type = await virt_type_of(session, hypervisor, storage)
    arch: str = await hypervisor.call(lambda connection: connection.getInfo()[0])
    plan = story.plan = _plan(story, storage, virt_type, arch)
    listening = None
    async with Undo() as undo:
        report.step(f"making {name} on {story.node.name}")
        story.made = await make(
            _making(context, story, storage, prepared), storage, hypervisor, undo
        )
        facts = await context.cluster.facts(story.node.name, with_origin=False)
        check_room(story.asked.request, story.node, facts, story.made.before)
        if story.asked.wait is not None and story.asked.wait.event is Event.CONSOLE:
            listening = await stack.enter_async_context(Listening(session, console_log(name)))
        await unbroken(start(hypervisor, plan.uuid))
    return listening


def _plan(story: Story, storage: Storage, virt_type: VirtType, arch: str) -> GuestPlan:
    assert storage.nbd is not None, "it has told its exports"
    asked, request = story.asked, story.asked.request
    origin = Origin(
        kind=request.kind,
        template=request.template.name,
        image=public_image(request.template.image[0]),
        export=guest_export_name(request.name),
        seed=None if asked.seed is None else seed_export_name(request.name),
        created=datetime.now(UTC),
        user=f"{getpass.getuser()}@{socket.gethostname()}",
    )
    options = GuestOptions(
        memory=request.memory, vcpus=request.vcpus, network=request.network, kind=request.kind
    )
    return plan_guest(
        request.template,
        options,
        name=request.name,
        uuid=asked.uuid,
        origin=origin,
        server=server_of(storage.nbd),
        # whether KVM works is tried only for a guest that is really made
        virt_type=VirtType.QEMU if virt_type is VirtType.AUTO else virt_type,
        arch=arch,
    )


def _making(context: Context, story: Story, storage: Storage, prepared: Prepared | None) -> Making:
    assert storage.nbd is not None, "what a guest is made on was asked for before"
    assert story.plan is not None, "it is made before"
    asked, request = story.asked, story.asked.request
    others = [] if asked.seed is None else [seed_export(request.name, asked.seed)]
    if not storage.is_per_node:  # else it would be lost with the node it is to survive
        others.append(_record(story, story.plan))
    return Making(
        plan=story.plan,
        disk=guest_export(request.template, request.name, storage.nbd, size=request.size),
        overlay=overlay_path(storage.nbd.overlays, request.name),
        others=tuple(others),
        before_start=(lambda: _customize(context, story, prepared)) if prepared else None,
    )


def _record(story: Story, plan: GuestPlan) -> Mapping[str, Any]:
    try:
        return record_export(plan.name, Record(story.node.name, domain_xml(plan)))
    except ValueError as exc:
        raise UsageError(f"{exc}; make the template's cmdline shorter") from None


async def _customize(context: Context, story: Story, prepared: Prepared) -> None:
    """Apply the template's options to the guest's export, which nobody uses yet."""
    name = story.asked.request.name
    story.customized = await prepared.apply(
        guest_export_name(name), lambda text: context.report.step(f"{name}: {text}")
    )
    if (failure := story.customized.failure) is not None:
        raise NodeError(
            failure.reason, failure.message, "minicloud -v tells all it said; nothing is left of it"
        )


async def _waited(
    context: Context, story: Story, wait: Wait, listening: Listening | None, begun: float
) -> None:
    """Wait until the guest is up; what keeps it is the story's error."""
    seconds = wait.seconds
    if context.timeout is not None:
        seconds = min(seconds, context.timeout - (time.monotonic() - begun))
    progress = _Remembering(context, story.asked.request.name)
    try:
        async with asyncio.timeout(max(seconds, 0.0)):
            await _seen(context, story, wait, listening, progress)
    except TimeoutError:
        story.error = NodeError(
            Reason.DEADLINE,
            f"{wait.event} was waited for {seconds_text(seconds)} in vain: {progress.last}",
            f"it goes on booting; look at it by minicloud console {story.asked.request.name}",
        )
    except NodeError as exc:
        story.error = exc
    except asyncio.CancelledError:  # the guest runs: what is left to do is to say so
        story.is_interrupted = True


async def _seen(
    context: Context,
    story: Story,
    wait: Wait,
    listening: Listening | None,
    progress: "_Remembering",
) -> None:
    """Wait for what tells that the guest is up, and note it."""
    hypervisor = await context.cluster.hypervisor(story.node.name)
    assert story.plan is not None, "it runs"
    uuid = story.plan.uuid
    if listening is None:
        session = await context.cluster.session(story.node.name)
        story.seen["ip"] = await wait_for_ssh(session, hypervisor, uuid, progress)
    else:
        line = await wait_for_line(listening, wait.text, hypervisor, uuid, progress)
        story.seen["line"] = line


class _Remembering:
    """Passes on what is waited for, and keeps the last word for when it does not come."""

    def __init__(self, context: Context, guest: str) -> None:
        self._report = context.report
        self._guest = guest
        self.last = "nothing was seen of it"

    def step(self, text: str) -> None:
        self.last = text
        self._report.step(f"waiting for {self._guest}: {text}")
