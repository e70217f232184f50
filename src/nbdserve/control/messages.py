"""What goes over the control socket: requests, and the replies to them.

A command is answered by any number of `Progress`, then one `Result` or one `Failure`. A failure's
kind is for programs, its text for people; a kind, once given, keeps its meaning.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nbdserve.errors import NbdserveError

__all__ = ["CommandError", "Failure", "FailureKind", "Progress", "Reply", "Request", "Result"]


class FailureKind(enum.StrEnum):
    """Whose the failure is, and what may be done about it."""

    REQUEST = "request"  # no request of this protocol; the connection ends
    VERSION = "version"  # of another version of the protocol
    COMMAND = "unknown-command"
    ARGUMENT = "argument"  # wrong as written
    EXPORT = "unknown-export"
    EXISTS = "exists"
    BUSY = "busy"
    DEVICE = "device"  # a source or layer said no
    PERMISSION = "permission"
    INTERNAL = "internal"


class CommandError(NbdserveError):
    """A command that cannot be carried out; becomes a `Failure`."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        self.kind = kind
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Request:
    """One command.

    Attributes:
        id: chosen by the client, repeated in every reply.
        command: its name.
        arguments: by name.
    """

    id: int
    command: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a long command has come."""

    id: int
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """A command was carried out."""

    id: int
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Failure:
    """A command was not carried out, and why."""

    id: int
    kind: FailureKind
    message: str


Reply = Progress | Result | Failure
