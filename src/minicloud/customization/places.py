"""Where virt-customize may run: on this machine, else on the first node that has it.

Nothing is copied there but what it is told; it works on the disk where that is served. So a place
is one that has the program and reaches the exports.
"""

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from minicloud.booting.virttype import Known
from minicloud.customization.tool import INSTALL, PROGRAM, SURVEY, Tool, parse_survey
from minicloud.domain.plan import TcpServer, UnixServer
from minicloud.errors import NodeError, Reason
from minicloud.model.inventory import Node, VirtType
from minicloud.model.outcome import Row
from minicloud.ssh.diagnosing import lost
from minicloud.ssh.session import Session
from minicloud.storage.exchange import Reader, Writer

__all__ = ["HERE", "Input", "Place", "place_here", "place_there", "placeless"]

HERE: Final = "this machine"

_LOOKING: Final = 15.0  # seconds for --help; the program is large and may come off a cold disk
_REACHING: Final = 3.0
_GREETING: Final = b"NBDMAGIC"  # NBD protocol, "Newstyle negotiation"
_NOT_FOUND: Final = 127
_ENDING: Final = 10.0  # seconds a run gets to clean up once its standard input has ended

Server = TcpServer | UnixServer


class Input(Writer, Protocol):
    """What a command there is fed by."""

    def write_eof(self) -> None:
        """Let it see the end of that; what it says is still to be read."""


Opening = Callable[[list[str]], AbstractAsyncContextManager[tuple[Reader, Input]]]


@dataclass(frozen=True, slots=True)
class Place:
    """A machine that can do it.

    Attributes:
        name: the node's, or HERE.
        tool: its virt-customize.
        emulates: KVM is not to be used there.
        opening: runs a command there; gives its standard output and input, both at once, until the
            block is left.
    """

    name: str
    tool: Tool
    emulates: bool
    opening: Opening


async def place_here(server: Server) -> Place:
    """Look at this machine.

    Raises:
        NodeError: `tool-missing`, or it does not reach the exports.
    """
    if shutil.which(PROGRAM) is None:
        raise _missing()
    await _reached_here(server)
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", SURVEY, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_LOOKING):
            told, _ = await process.communicate()
    except TimeoutError:
        raise NodeError(
            Reason.TOOL, f"{PROGRAM} --help did not end within {_LOOKING:g} s", INSTALL
        ) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    tool = parse_survey(told.decode(errors="replace"))
    return Place(HERE, tool, not tool.kvm.may_work, _run_here)


async def place_there(session: Session, server: Server) -> Place:
    """Look at a node.

    Raises:
        NodeError: likewise, or the node does not answer.
    """
    done = await session.run(["sh", "-c", SURVEY], deadline=_LOOKING)
    if done.status == _NOT_FOUND:
        raise _missing()
    tool = parse_survey(done.stdout.decode(errors="replace"))
    await _reached_there(session, server)

    def run_there(argv: list[str]) -> AbstractAsyncContextManager[tuple[Reader, Input]]:
        return _run_there(session, argv)

    return Place(session.node.name, tool, _emulates(session.node, tool), run_there)


def _emulates(node: Node, tool: Tool) -> bool:
    """Tell whether KVM is not to be used on a node."""
    if node.virt_type is not VirtType.AUTO:
        return node.virt_type is VirtType.QEMU
    if not tool.kvm.may_work:
        return True
    return Known().read(node.name, tool.kvm.boot) is VirtType.QEMU  # a guest was tried there


def placeless(rows: Iterable[Row[Any]]) -> NodeError:
    """Say of all places at once why none will do; there is one error in each row."""
    errors = [(row.node, row.error) for row in rows if row.error is not None]
    missing = [name for name, error in errors if error.message == _missing().message]
    others = [f"{name}: {error.message}" for name, error in errors if name not in missing]
    text = f"{PROGRAM} was not found on {_listed(missing)}" if missing else ""
    text = "; ".join(filter(None, [text, *others])) or f"no machine was asked for {PROGRAM}"
    remedies = [error.remedy for name, error in errors if name not in missing and error.remedy]
    return NodeError(Reason.TOOL, text, INSTALL if missing or not remedies else remedies[0])


def _listed(names: list[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def _missing() -> NodeError:
    return NodeError(Reason.TOOL, f"it has no {PROGRAM}", INSTALL)


async def _reached_here(server: Server) -> None:
    try:
        async with asyncio.timeout(_REACHING):
            if isinstance(server, UnixServer):
                reader, writer = await asyncio.open_unix_connection(server.path)
            else:
                reader, writer = await asyncio.open_connection(server.host, server.port)
            with contextlib.closing(writer):
                greeting = await reader.read(len(_GREETING))
    except (OSError, TimeoutError) as exc:
        raise _unreached(server, str(exc) or f"no answer in {_REACHING:g} s") from None
    if greeting != _GREETING:
        raise _unreached(server, "what answers there speaks no NBD")


async def _reached_there(session: Session, server: Server) -> None:
    try:
        async with asyncio.timeout(_REACHING):
            if isinstance(server, UnixServer):
                reader, writer = await session.open_unix(server.path)
            else:
                reader, writer = await session.open_tcp(server.host, server.port)
            with contextlib.closing(writer):
                greeting = await reader.read(len(_GREETING))
    except TimeoutError:
        raise _unreached(server, f"no answer in {_REACHING:g} s") from None
    except NodeError as exc:
        if exc.reason is Reason.NO_FORWARDING:
            return  # sshd lets nobody look; virt-customize will see
        raise _unreached(server, exc.message) from None
    if greeting != _GREETING:
        raise _unreached(server, "what answers there speaks no NBD")


def _unreached(server: Server, why: str) -> NodeError:
    what = server.path if isinstance(server, UnixServer) else f"{server.host} port {server.port}"
    return NodeError(
        Reason.UNREACHABLE, f"it does not reach the exports at {what}: {why}",
        "is nbdserve running there, and is its address in [nbd] one that all machines reach?",
    )  # fmt: skip


@contextlib.asynccontextmanager
async def _run_here(argv: list[str]) -> AsyncIterator[tuple[Reader, Input]]:
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is ours to act upon
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdout, process.stdin
    finally:
        process.stdin.close()
        for end in (process.terminate, process.kill):
            if not await _has_ended(process):
                end()
        await _has_ended(process)


async def _has_ended(process: asyncio.subprocess.Process) -> bool:
    """Wait a while; who holds its output after it has ended is not waited for."""
    try:
        async with asyncio.timeout(_ENDING):
            await process.wait()
    except TimeoutError:
        return process.returncode is not None
    return True


@contextlib.asynccontextmanager
async def _run_there(session: Session, argv: list[str]) -> AsyncIterator[tuple[Reader, Input]]:
    reader, writer = await session.stream(argv)
    try:
        yield reader, writer
    except NodeError as exc:
        if session.is_lost and exc.reason is not Reason.SSH_LOST:
            raise lost() from exc  # its output had just ended
        raise
    finally:
        writer.close()
