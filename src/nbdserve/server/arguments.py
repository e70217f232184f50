"""What a control command gets: arguments typed by the kinds that parameters have, a reporter."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from nbdserve.control.messages import CommandError, FailureKind
from nbdserve.params import Kind, closest, shown

__all__ = ["Arguments", "Report"]

T = TypeVar("T")

Report = Callable[[Mapping[str, Any]], Awaitable[None]]
"""Called with facts about how far a command has come."""


class Arguments:
    """What came with a command.

    Args:
        given: by name, as the client wrote them.
        known: the names there are.

    Raises:
        CommandError: another name was given.
    """

    def __init__(self, given: Mapping[str, Any], *known: str) -> None:
        self._given = given
        for name in given:
            if name not in known:
                raise CommandError(
                    FailureKind.ARGUMENT, f"unknown argument {name!r}; {closest(name, known)}"
                )

    def optional(self, name: str, kind: Kind[T], default: T) -> T:
        """Return an argument, or `default` if it was not given."""
        return default if self._given.get(name) is None else self._parsed(name, kind)

    def table(self, name: str) -> Mapping[str, Any]:
        """Return an argument that is itself an object."""
        value = self._given.get(name)
        if not isinstance(value, dict):
            raise CommandError(FailureKind.ARGUMENT, f"needs {name}, an object")
        return value

    def _parsed(self, name: str, kind: Kind[T]) -> T:
        value = self._given[name]
        try:
            if not isinstance(value, str | int | float | bool):
                raise ValueError(f"a {kind.name}")  # noqa: TRY301, TRY004 -- told like any other
            return kind.parse(value)
        except ValueError as exc:
            raise CommandError(
                FailureKind.ARGUMENT, f"{name} {shown(value)} will not do: {exc}"
            ) from None
