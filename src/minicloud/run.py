"""The run of one command: what it is given, how long it may take, what ends it, who prints.

A signal cancels the command, which undoes what it had begun; so does the end of its time.
"""

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Final

from minicloud.cluster import Cluster, Patience
from minicloud.commands.context import Context, Reporter
from minicloud.errors import MinicloudError, NodeError, StorageError, UsageError
from minicloud.inventory.reading import InventoryError, find_inventory, read_inventory
from minicloud.model.inventory import Inventory, Node
from minicloud.model.outcome import status_of_signal
from minicloud.model.view import Outcome
from minicloud.render.output import clear, print_outcome
from minicloud.render.progress import TerminalReporter
from minicloud.render.question import ask
from minicloud.render.terminal import StandardTerminal
from minicloud.storage.exchange import Dial, Reader, Writer
from minicloud.storage.service import Storage

__all__ = ["run_command"]

_GRACE: Final = 1.0  # seconds a command may take beyond its time to say what came of it
_TICK: Final = 0.25  # seconds between two looks whether progress is to be shown


def run_command(command: ModuleType, arguments: argparse.Namespace) -> int:
    """Run a module of `minicloud.commands`, print what came of it; return the exit status.

    Raises:
        UsageError: the inventory cannot be used.
    """
    with asyncio.Runner() as runner:
        return runner.run(_carry_out(command, arguments))


async def _carry_out(command: ModuleType, arguments: argparse.Namespace) -> int:
    """Run the command with all it needs, print what came of it; return the exit status."""
    stopped = _stopped_by(signal.SIGTERM, signal.SIGHUP)
    try:
        if getattr(command, "ALONE", False):
            outcome = await _alone(command, arguments)
            print_outcome(outcome, as_json=arguments.json)
            return outcome.status
        async with _context(command, arguments) as context:
            outcome = await _in_time(command, arguments, context)
            while (pause := _pause(command, arguments)) is not None:
                _show_again(outcome, as_json=arguments.json)
                await asyncio.sleep(pause)
                outcome = await _in_time(command, arguments, context)
    except asyncio.CancelledError:
        if arguments.json and _pause(command, arguments) is None:
            print_outcome(_interrupted(), as_json=True)
        if not stopped:
            raise
        return status_of_signal(stopped[0])
    except MinicloudError as exc:
        outcome = _failure(exc)
    print_outcome(outcome, as_json=arguments.json)
    if outcome.is_interrupted:
        return status_of_signal(stopped[0] if stopped else signal.SIGINT)
    return outcome.status


async def _alone(command: ModuleType, arguments: argparse.Namespace) -> Outcome:
    outcome: Outcome = await command.run(None, arguments)
    return outcome


def _pause(command: ModuleType, arguments: argparse.Namespace) -> float | None:
    """Return the seconds until the command is to be run again; None is never."""
    repeats = getattr(command, "repeats", None)
    pause: float | None = None if repeats is None else repeats(arguments)
    return pause


def _show_again(outcome: Outcome, *, as_json: bool) -> None:
    """Print one of many outcomes: a terminal shows the last one alone."""
    if not as_json:
        clear()
    print_outcome(outcome, as_json=as_json)


async def _in_time(command: ModuleType, arguments: argparse.Namespace, context: Context) -> Outcome:
    """Run the command; over its time, and a little more to say so, it is cancelled."""
    limit = None if context.timeout is None else context.timeout + _GRACE
    ticking = asyncio.create_task(_tick(context.report), name="progress")
    limiting = asyncio.timeout(limit)
    try:
        async with limiting:
            outcome: Outcome = await command.run(context, arguments)
            return outcome
    except TimeoutError:
        if not limiting.expired():
            raise
        raise UsageError(
            f"{arguments.command} was not done after {context.timeout:g} s and was given up; "
            "give it more with --timeout"
        ) from None
    finally:
        ticking.cancel()
        context.report.pause()


@contextlib.asynccontextmanager
async def _context(command: ModuleType, arguments: argparse.Namespace) -> AsyncIterator[Context]:
    """Read the inventory and make what commands are given."""
    inventory = read_inventory(find_inventory(arguments.config), ssh_config=arguments.ssh_config)
    if not inventory.nodes and getattr(command, "NEEDS_NODES", True):
        raise UsageError("it has no nodes; write a [nodes.NAME] table", file=inventory.file)
    patience = Patience() if arguments.timeout is None else Patience(whole=arguments.timeout)
    is_shown = sys.stderr.isatty() and not arguments.json
    async with Cluster(inventory, patience) as cluster, _storage(inventory, cluster) as storage:
        cluster.nodes(arguments.node)  # a name that is none ends it before anything is asked
        with TerminalReporter(is_shown=is_shown) as report:

            async def asking(question: str) -> bool:
                report.pause()
                return await ask(question)

            yield Context(
                inventory=inventory, cluster=cluster, storage=storage, only=tuple(arguments.node),
                dry_run=getattr(arguments, "dry_run", False), timeout=arguments.timeout,
                report=report, ask=asking, terminal=StandardTerminal(),
            )  # fmt: skip


def _storage(inventory: Inventory, cluster: Cluster) -> Storage:
    """Make the way to nbdserve's control socket: here, on the machine [nbd] names, on each node."""

    def dial_at(node: Node) -> Dial:
        async def dial(path: str) -> tuple[Reader, Writer]:
            return await (await cluster.session_to(node)).open_unix(path)

        return dial

    server = None if inventory.nbd is None else inventory.nbd.ssh
    if server is None:
        return Storage(inventory.nbd, dial_node=dial_at)
    return Storage(inventory.nbd, dial=dial_at(server), dial_node=dial_at, where=server.host)


async def _tick(report: Reporter) -> None:
    while True:
        await asyncio.sleep(_TICK)
        report.tick()


def _stopped_by(*numbers: signal.Signals) -> list[signal.Signals]:
    """Cancel the command at these signals, as Ctrl-C does; returns what has come.

    One that is ignored (nohup) stays so.
    """
    come: list[signal.Signals] = []
    task = asyncio.current_task()
    assert task is not None

    def stop(number: signal.Signals) -> None:
        come.append(number)
        task.cancel()

    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, stop, number)
    return come


def _interrupted() -> Outcome:
    """Make an outcome of a command that a signal ended before it had one."""
    error = {"node": None, "reason": "interrupted", "message": "it was interrupted", "remedy": ""}
    return Outcome({"errors": [error]})


def _failure(exc: MinicloudError) -> Outcome:
    """Make an outcome of an error that ended the command."""
    reason = "usage"
    if isinstance(exc, NodeError):
        reason = str(exc.reason)
    elif isinstance(exc, StorageError):
        reason = f"storage-{exc.kind}"
    # of an inventory everything that is wrong is told at once
    texts = [str(error) for error in (exc.errors if isinstance(exc, InventoryError) else (exc,))]
    errors = [{"node": None, "reason": reason, "message": text, "remedy": ""} for text in texts]
    return Outcome({"errors": errors}, errors=texts, status=2)
