"""A guest's power: started, asked to stop, forced, woken; and waiting until it has happened.

Each function that libvirt is called in is made for `Hypervisor.call` and gives plain values. The
waiting is asyncio's: told by events, with a look at the guest now and then in case one was lost.
An operator's patience is the only limit; a guest that does not listen is forced, never waited for.
"""

import asyncio
import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from minicloud.hypervisor.binding import libvirt_module
from minicloud.hypervisor.events import Happening, Watch
from minicloud.hypervisor.states import ACTIVE, reason_of, state_of
from minicloud.model.guest import GuestState

if TYPE_CHECKING:
    from minicloud.hypervisor.driver import Hypervisor

__all__ = [
    "NO_SPACE",
    "Asking",
    "Power",
    "Rebooted",
    "Resumed",
    "Stopped",
    "look",
    "reboot",
    "resume",
    "start",
    "stop",
    "until_off",
]

NO_SPACE: Final = "no space"  # among `Power.faults`: the server's file system is full

_LOOK_AGAIN: Final = 5.0  # seconds between looks while events are waited for
_AGAIN: Final = 0.5  # seconds between tries to resume a guest
_KILLING: Final = 30.0  # seconds: libvirt gives qemu 10 s to end by SIGTERM and 5 by SIGKILL
_STARTING: Final = 60.0  # seconds: qemu opens every disk before libvirtd answers
_ASKING: Final = 15.0  # seconds: an agent that hangs costs libvirt 5 of them


class Asking(enum.StrEnum):
    """How a guest is asked to stop or reboot."""

    AUTO = "auto"  # by its agent where one is connected, else as by its power button
    ACPI = "acpi"
    AGENT = "guest-agent"


@dataclass(frozen=True, slots=True)
class Power:
    """How a guest is.

    Attributes:
        state: what it does; SHUTOFF for a transient guest that is gone.
        reason: why, in libvirt's words, or "".
        is_there: whether the domain exists.
        faults: disk → why it failed (`unspecified error`, `no space`), while it is paused for that.
    """

    state: GuestState
    reason: str
    is_there: bool
    faults: dict[str, str]

    @property
    def is_off(self) -> bool:
        """Whether it holds neither memory nor disks."""
        return self.state not in ACTIVE


@dataclass(frozen=True, slots=True)
class Stopped:
    """How a guest came to be off.

    Attributes:
        was_forced: it did not stop when it was asked to.
        is_there: whether the domain is still defined.
        seconds: it took.
    """

    was_forced: bool
    is_there: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Rebooted:
    """How a guest was started anew.

    Attributes:
        was_forced: it was reset, since it did not reboot when it was asked to.
        is_off: it stopped instead of coming back.
        seconds: it took.
    """

    was_forced: bool
    is_off: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Resumed:
    """What a guest did once it was resumed: runs, or has paused again for the reason in `power`."""

    power: Power


def look(uuid: str) -> Callable[[Any], Power]:
    """Ask how a guest is; one that is gone is off."""

    def work(connection: Any) -> Power:
        lib = libvirt_module()
        try:
            domain = connection.lookupByUUIDString(uuid)
            state, reason = _state(domain)
            faults = _faults(domain) if state is GuestState.PAUSED else {}
        except lib.libvirtError as exc:
            if exc.get_error_code() != lib.VIR_ERR_NO_DOMAIN:
                raise
            return Power(GuestState.SHUTOFF, "", is_there=False, faults={})
        return Power(state, reason, is_there=True, faults=faults)

    return work


async def start(hypervisor: "Hypervisor", uuid: str) -> None:
    """Start a guest that is defined and off."""
    await hypervisor.call(_act(uuid, "create"), deadline=_STARTING)


async def stop(
    hypervisor: "Hypervisor", uuid: str, *, asking: Asking = Asking.AUTO, grace: float
) -> Stopped:
    """Ask a running guest to stop and wait until it has; then force it.

    It is asked once more after half of the time: a guest that was starting up when its power
    button was pressed did not notice.

    Args:
        hypervisor: of its node.
        uuid: of the guest.
        asking: how.
        grace: seconds until it is forced; 0 forces at once.
    """
    begun = _now()
    async with Watch(hypervisor, uuid) as watch:
        if grace > 0:
            for share in (grace / 2, grace / 2):
                await hypervisor.call(_press(uuid, asking), deadline=_ASKING)
                power = await _until_off(hypervisor, watch, uuid, share)
                if power.is_off:
                    return Stopped(
                        was_forced=False, is_there=power.is_there, seconds=_now() - begun
                    )
        await hypervisor.call(_kill(uuid), deadline=_KILLING)
    power = await hypervisor.call(look(uuid))
    return Stopped(was_forced=True, is_there=power.is_there, seconds=_now() - begun)


async def reboot(
    hypervisor: "Hypervisor", uuid: str, *, asking: Asking = Asking.AUTO, grace: float
) -> Rebooted:
    """Ask a running guest to reboot and wait until its machine starts anew; then reset it.

    Args:
        hypervisor: of its node.
        uuid: of the guest.
        asking: how.
        grace: seconds until it is reset; 0 resets at once.
    """
    begun = _now()
    async with Watch(hypervisor, uuid) as watch:
        if grace > 0:
            await hypervisor.call(_ask_to_reboot(uuid, asking), deadline=_ASKING)
            happened = await _until_rebooted(hypervisor, watch, uuid, grace)
            if happened is not None:
                is_off = happened is Happening.STOPPED
                return Rebooted(was_forced=False, is_off=is_off, seconds=_now() - begun)
        await hypervisor.call(_act(uuid, "reset"))
    return Rebooted(was_forced=True, is_off=False, seconds=_now() - begun)


async def resume(
    hypervisor: "Hypervisor", uuid: str, *, proof: float, patience: float, again: float = _AGAIN
) -> Resumed:
    """Let a paused or suspended guest go on, and see whether it does.

    A guest that pauses again is resumed again for some time. Without `<reconnect>` qemu fails every
    request while it has no connection, and a thread of its tries to connect after 1 s, then 2, 4, 8
    and at last every 16 s (qemu 7.2, nbd/client-connection.c): a server that is there again may
    have to wait that long for it.

    Args:
        hypervisor: of its node.
        uuid: of the guest.
        proof: seconds it has to go on without pausing again: what failed is tried again at once.
        patience: seconds from now after which a guest that pauses again is left so.
        again: seconds between two tries.
    """
    end = _now() + patience
    async with Watch(hypervisor, uuid) as watch:
        while True:
            await hypervisor.call(_wake(uuid))
            power = await _after(hypervisor, watch, uuid, proof)
            if power.state is not GuestState.PAUSED or _now() + again > end:
                return Resumed(power)
            await asyncio.sleep(again)


async def _after(hypervisor: "Hypervisor", watch: Watch, uuid: str, seconds: float) -> Power:
    """Tell how a guest is after so long, or as soon as it is found paused or off."""
    end = _now() + seconds
    while (left := end - _now()) > 0:
        if await watch.next(left) in (Happening.PAUSED, Happening.STOPPED):
            power = await hypervisor.call(look(uuid))  # the event may be from before it was resumed
            if power.is_off or power.state is GuestState.PAUSED:
                return power
    return await hypervisor.call(look(uuid))


async def until_off(hypervisor: "Hypervisor", uuid: str, seconds: float) -> Power:
    """Wait until a guest is off, at most so long; returns how it is then."""
    power = await hypervisor.call(look(uuid))
    if power.is_off:
        return power
    async with Watch(hypervisor, uuid) as watch:
        return await _until_off(hypervisor, watch, uuid, seconds)


async def _until_off(hypervisor: "Hypervisor", watch: Watch, uuid: str, seconds: float) -> Power:
    """Wait until a guest is off, or for so long; returns how it is then."""
    end = _now() + seconds
    while True:
        power = await hypervisor.call(look(uuid))
        left = end - _now()
        if power.is_off or left <= 0:
            return power
        await watch.next(min(left, _LOOK_AGAIN))


async def _until_rebooted(
    hypervisor: "Hypervisor", watch: Watch, uuid: str, seconds: float
) -> Happening | None:
    """Wait until a guest has begun anew or is off; None if neither came in time."""
    end = _now() + seconds
    while (left := end - _now()) > 0:
        happened = await watch.next(min(left, _LOOK_AGAIN))
        if happened in (Happening.REBOOTED, Happening.STOPPED):
            return happened
        if (await hypervisor.call(look(uuid))).is_off:
            return Happening.STOPPED
    return None


def _press(uuid: str, asking: Asking) -> Callable[[Any], None]:
    def work(connection: Any) -> None:
        lib = libvirt_module()
        flags = {
            Asking.ACPI: lib.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN,
            Asking.AGENT: lib.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT,
        }.get(asking, lib.VIR_DOMAIN_SHUTDOWN_DEFAULT)
        _unless_off(connection, uuid, lambda domain: domain.shutdownFlags(flags))

    return work


def _ask_to_reboot(uuid: str, asking: Asking) -> Callable[[Any], None]:
    def work(connection: Any) -> None:
        lib = libvirt_module()
        flags = {
            Asking.ACPI: lib.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN,
            Asking.AGENT: lib.VIR_DOMAIN_REBOOT_GUEST_AGENT,
        }.get(asking, lib.VIR_DOMAIN_REBOOT_DEFAULT)
        _domain(connection, uuid).reboot(flags)

    return work


def _kill(uuid: str) -> Callable[[Any], None]:
    return lambda connection: _unless_off(connection, uuid, lambda domain: domain.destroy())


def _wake(uuid: str) -> Callable[[Any], None]:
    def work(connection: Any) -> None:
        domain = _domain(connection, uuid)
        state, _ = _state(domain)
        if state is GuestState.SUSPENDED:
            domain.pMWakeup()
        else:
            domain.resume()

    return work


def _unless_off(connection: Any, uuid: str, act: Callable[[Any], object]) -> None:
    """Do something to a guest unless it has just gone off by itself."""
    lib = libvirt_module()
    try:
        act(_domain(connection, uuid))
    except lib.libvirtError:  # drivers do not agree on an error for this
        if not look(uuid)(connection).is_off:
            raise


def _act(uuid: str, verb: str) -> Callable[[Any], None]:
    def work(connection: Any) -> None:
        getattr(_domain(connection, uuid), verb)()

    return work


def _domain(connection: Any, uuid: str) -> Any:
    return connection.lookupByUUIDString(uuid)


def _state(domain: Any) -> tuple[GuestState, str]:
    number, why = domain.state()
    state = state_of(number)
    return state, reason_of(state, why)


def _faults(domain: Any) -> dict[str, str]:
    """Tell which disks failed; a hypervisor that cannot tell says nothing."""
    lib = libvirt_module()
    try:
        errors = domain.diskErrors()
    except lib.libvirtError:
        return {}
    words = {lib.VIR_DOMAIN_DISK_ERROR_NO_SPACE: NO_SPACE}
    return {
        disk: words.get(number, "I/O error")
        for disk, number in sorted(errors.items())
        if number != lib.VIR_DOMAIN_DISK_ERROR_NONE
    }


def _now() -> float:
    return asyncio.get_running_loop().time()
