"""libvirt's numbers for what a guest does and why, as `virsh` words them.

The numbers are virDomainState and virDomain*Reason of libvirt-domain.h, which never change; the
words are those of virsh's domstate (tools/virsh-domain-monitor.c), so that both ways agree.
"""

from collections.abc import Mapping
from typing import Final

from minicloud.model.guest import GuestState

__all__ = ["ACTIVE", "reason_of", "state_of"]

_STATES: Final = (
    GuestState.UNKNOWN, GuestState.RUNNING, GuestState.BLOCKED, GuestState.PAUSED,
    GuestState.SHUTDOWN, GuestState.SHUTOFF, GuestState.CRASHED, GuestState.SUSPENDED,
)  # fmt: skip  # by virDomainState

ACTIVE: Final = frozenset(_STATES) - {GuestState.SHUTOFF}
"""In these a guest has a process, and its memory."""

_REASONS: Final[Mapping[GuestState, tuple[str, ...]]] = {
    GuestState.RUNNING: (
        "unknown", "booted", "migrated", "restored", "from snapshot", "unpaused",
        "migration canceled", "save canceled", "event wakeup", "crashed", "post-copy",
        "post-copy failed",
    ),
    GuestState.PAUSED: (
        "unknown", "user", "migrating", "saving", "dumping", "I/O error", "watchdog",
        "from snapshot", "shutting down", "creating snapshot", "crashed", "starting up",
        "post-copy", "post-copy failed", "API error",
    ),
    GuestState.SHUTOFF: (
        "unknown", "shutdown", "destroyed", "crashed", "migrated", "saved", "failed",
        "from snapshot", "daemon",
    ),
    GuestState.CRASHED: ("unknown", "panicked"),
}  # fmt: skip


def state_of(number: int) -> GuestState:
    """Return what a guest does."""
    return _STATES[number] if 0 <= number < len(_STATES) else GuestState.UNKNOWN


def reason_of(state: GuestState, number: int) -> str:
    """Return why a guest is in its state; "" where libvirt says nothing worth reading."""
    words = _REASONS.get(state, ())
    return words[number] if 0 < number < len(words) else ""
