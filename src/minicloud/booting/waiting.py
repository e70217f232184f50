"""Waiting until a guest that was started is up: an ssh server answers, or its console says a line.

Nothing here changes the guest: when the time is over it goes on booting, and the operator is told
what was seen last. A guest that ended or stopped meanwhile is not waited for any longer.
"""

import asyncio
import functools
from typing import Final, Protocol, Self

from minicloud.errors import NodeError, Reason
from minicloud.hypervisor.domains import standing
from minicloud.hypervisor.driver import Hypervisor
from minicloud.hypervisor.sightings import look_around
from minicloud.model.guest import GuestState
from minicloud.ssh.session import Reader, Session, Writer

__all__ = [
    "Listening",
    "Progress",
    "wait_for_line",
    "wait_for_ssh",
]

_PACE: Final = 0.5  # seconds between two looks; a guest takes several to boot
_SILENCE: Final = 2.0  # seconds after which a console that says nothing is a reason to look
_SSH_PORT: Final = 22
_BANNER: Final = b"SSH-"  # RFC 4253, section 4.2
_GREETING: Final = 3.0  # seconds a server may take to send it
_ENDED: Final = frozenset({GuestState.SHUTOFF, GuestState.CRASHED})

# The size is taken and told before the guest runs, so that a pet's former story is passed over and
# nothing of the new one is missed.
_FOLLOW: Final = 'size=$(wc -c <"$0") || exit; echo; exec tail -c "+$((size + 1))" -f "$0"'


class Progress(Protocol):
    """Told what is being waited for."""

    def step(self, text: str) -> None:
        """Say it."""


class Listening:
    """A guest's console log on its node, followed from now on; an async context manager.

    Args:
        session: to the node.
        path: of the log there.
    """

    def __init__(self, session: Session, path: str) -> None:
        self._session = session
        self._path = path
        self._reader: Reader | None = None
        self._writer: Writer | None = None

    async def __aenter__(self) -> Self:
        """Begin; what the guest says after this is not missed.

        Raises:
            NodeError: the log cannot be read.
        """
        reader, writer = await self._session.stream(["sh", "-c", _FOLLOW, self._path])
        self._writer = writer
        if not await reader.readline():
            writer.close()
            raise NodeError(
                Reason.COMMAND, f"{self._path} cannot be read on the node",
                "log in as root there, or wait for ssh instead",
            )  # fmt: skip
        self._reader = reader
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._writer is not None:
            self._writer.close()

    async def line(self) -> str:
        """Return the next line; NodeError where there will be none."""
        assert self._reader is not None, "entered"
        data = await self._reader.readline()
        if not data:
            raise NodeError(Reason.SSH_LOST, "the ssh connection was lost", "run it again")
        return data.decode(errors="replace").strip()


async def wait_for_line(
    listening: Listening, text: str, hypervisor: Hypervisor, uuid: str, progress: Progress
) -> str:
    """Wait until the console says a line that holds the text; return the line.

    Raises:
        NodeError: the guest ended or stopped, and its console has said all it had to say.
    """
    while True:
        try:
            async with asyncio.timeout(_SILENCE):
                line = await listening.line()
        except TimeoutError:
            await _check_alive(hypervisor, uuid)
            continue
        if line and text in line:
            return line
        if line:
            progress.step(f"console: {line}")


async def wait_for_ssh(
    session: Session, hypervisor: Hypervisor, uuid: str, progress: Progress
) -> str:
    """Wait until an address of the guest is known and an ssh server answers there.

    Args:
        session: to the node; the way to the guest goes through it.
        hypervisor: of the node.
        uuid: of the guest.
        progress: told what is missing.

    Returns:
        The address.

    Raises:
        NodeError: the guest ended or stopped.
    """
    while True:
        await _check_alive(hypervisor, uuid)
        sightings = await look_around(hypervisor, session, uuid, only_first=True)
        if not sightings.addresses:
            progress.step("no address of it is known yet")
        for address in sightings.addresses:
            missing = await _ssh_answers(session, address.address)
            if not missing:
                return address.address
            progress.step(f"{address.address}: {missing}")
        await asyncio.sleep(_PACE)


async def _check_alive(hypervisor: Hypervisor, uuid: str) -> None:
    now = await hypervisor.call(functools.partial(standing, uuid=uuid))
    if now is None or now.state in _ENDED:
        raise NodeError(
            Reason.LIBVIRT, "the guest has ended by itself", "see what it said: minicloud console"
        )
    if now.state is GuestState.PAUSED:
        why = f" ({now.reason})" if now.reason else ""
        raise NodeError(
            Reason.LIBVIRT, f"the guest is paused{why}",
            "if its disk failed, see nbdserve's log; then minicloud resume",
        )  # fmt: skip


async def _ssh_answers(session: Session, address: str) -> str:
    """Say why no ssh server answers at an address; "" if one does."""
    try:
        async with asyncio.timeout(_GREETING):
            reader, writer = await session.open_tcp(address, _SSH_PORT)
    except TimeoutError:
        return "does not answer"
    except NodeError as exc:
        if exc.reason in {Reason.SSH_LOST, Reason.NO_FORWARDING}:
            raise
        return exc.message
    try:
        async with asyncio.timeout(_GREETING):
            greeting = await reader.read(len(_BANNER))
    except TimeoutError:
        return "port 22 accepts and says nothing"
    finally:
        writer.close()
    return "" if greeting.startswith(_BANNER) else "port 22 speaks no ssh"
