"""Where a guest is after a move that did not end well, by what both nodes say it does."""

from dataclasses import dataclass

from minicloud.model.guest import GuestState

__all__ = ["Whereabouts", "whereabouts"]

_RUNNING = frozenset({GuestState.RUNNING, GuestState.BLOCKED})


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """What is known.

    Attributes:
        text: for the operator, one line.
        is_here: it is on the node it was to leave; what the other has of it is a remnant if it
            waits for a migration.
        may_go_on: it is paused there, and runs nowhere else for certain.
    """

    text: str
    is_here: bool = False
    may_go_on: bool = False


def whereabouts(
    name: str, source: str, target: str, here: GuestState | None, there: GuestState | None
) -> Whereabouts:
    """Say where a guest is.

    Args:
        name: of the guest.
        source: the node it was to leave.
        target: the node it was to go to.
        here: what it does on the source; None where that does not say.
        there: likewise on the target.
    """
    if here in _RUNNING:
        return Whereabouts(f"{name} still runs on {source}", is_here=True)
    if there in _RUNNING:
        return Whereabouts(f"{name} runs on {target} all the same")
    if here is None:
        return Whereabouts(f"{source} does not say whether {name} still runs there")
    if here is not GuestState.PAUSED:
        return Whereabouts(f"{name} is {here} on {source}; see its log there")
    return _paused(name, source, target, there)


def _paused(name: str, source: str, target: str, there: GuestState | None) -> Whereabouts:
    """Say what becomes of a guest that is paused on the source."""
    if there is None:
        return Whereabouts(
            f"{name} is paused on {source}, and {target} does not say whether it runs there; if "
            f"it does not, minicloud resume {name}"
        )
    if there is GuestState.PAUSED:
        return Whereabouts(
            f"{name} is paused on {source} and on {target}; minicloud info tells why; let it go on "
            f"on one of them alone: minicloud resume NODE:{name}",
            is_here=True,
        )
    text = f"it was left paused on {source}, and goes on there"
    return Whereabouts(text, is_here=True, may_go_on=True)
