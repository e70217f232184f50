"""What happens to a guest, told by libvirt while it happens: nobody has to ask again and again.

libvirt delivers events through an event loop of its own, which has to be there before a connection
is opened. It is one thread, begun by the first command that needs it; commands that only ask have
none. The callbacks run on that thread and hand plain values to asyncio's loop, nothing else.

An event may be lost with the connection, so whoever waits for one also looks now and then.
"""

import asyncio
import contextlib
import enum
import functools
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

from minicloud.errors import NodeError
from minicloud.hypervisor.binding import libvirt_module

if TYPE_CHECKING:
    from minicloud.hypervisor.driver import Hypervisor

__all__ = ["Happening", "Watch", "start_events"]


class Happening(enum.Enum):
    """What a guest did; libvirt's virDomainEventType, as far as somebody waits for it."""

    STARTED = enum.auto()
    STOPPED = enum.auto()  # off, whatever ended it
    REBOOTED = enum.auto()
    PAUSED = enum.auto()
    RESUMED = enum.auto()
    OTHER = enum.auto()


@functools.cache
def start_events() -> None:
    """Let connections that are opened from now on deliver events; once a process is enough."""
    libvirt_module().virEventRegisterDefaultImpl()
    threading.Thread(target=_deliver, name="libvirt-events", daemon=True).start()


class Watch:
    """The events of one guest, from entering on; an asynchronous context manager.

    `start_events` must have been called before the hypervisor was connected.

    Args:
        hypervisor: of its node.
        uuid: of the guest.
    """

    def __init__(self, hypervisor: "Hypervisor", uuid: str) -> None:
        self._hypervisor = hypervisor
        self._uuid = uuid
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Happening] = asyncio.Queue()
        self._numbers: list[int] = []

    async def __aenter__(self) -> Self:
        self._numbers = await self._hypervisor.call(self._register)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(NodeError):  # the connection is lost, the callbacks with it
            await self._hypervisor.call(self._deregister)

    async def next(self, seconds: float) -> Happening | None:
        """Wait for something to happen; None if nothing did within so many seconds."""
        try:
            return await asyncio.wait_for(self._queue.get(), max(0.0, seconds))
        except TimeoutError:
            return None

    def _register(self, connection: Any) -> list[int]:
        lib = libvirt_module()
        domain = connection.lookupByUUIDString(self._uuid)
        add = connection.domainEventRegisterAny
        return [
            add(domain, lib.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle, None),
            add(domain, lib.VIR_DOMAIN_EVENT_ID_REBOOT, self._on_reboot, None),
        ]

    def _deregister(self, connection: Any) -> None:
        while self._numbers:
            connection.domainEventDeregisterAny(self._numbers.pop())

    def _on_lifecycle(
        self, _connection: object, _domain: object, event: int, _detail: int, _opaque: object
    ) -> None:
        self._post(_lifecycle().get(event, Happening.OTHER))

    def _on_reboot(self, _connection: object, _domain: object, _opaque: object) -> None:
        self._post(Happening.REBOOTED)

    def _post(self, happening: Happening) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended; nobody waits
            self._loop.call_soon_threadsafe(self._queue.put_nowait, happening)


_QUIET: Final = 0.1  # seconds before another try where libvirt's loop failed


def _deliver() -> NoReturn:
    lib = libvirt_module()
    pause = threading.Event()
    while True:
        try:
            lib.virEventRunDefaultImpl()
        except lib.libvirtError:
            pause.wait(_QUIET)  # it would fail again at once


@functools.cache
def _lifecycle() -> dict[int, Happening]:
    lib = libvirt_module()
    return {
        lib.VIR_DOMAIN_EVENT_STARTED: Happening.STARTED,
        lib.VIR_DOMAIN_EVENT_STOPPED: Happening.STOPPED,
        lib.VIR_DOMAIN_EVENT_CRASHED: Happening.STOPPED,
        lib.VIR_DOMAIN_EVENT_SUSPENDED: Happening.PAUSED,
        lib.VIR_DOMAIN_EVENT_PMSUSPENDED: Happening.PAUSED,
        lib.VIR_DOMAIN_EVENT_RESUMED: Happening.RESUMED,
    }
