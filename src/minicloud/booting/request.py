"""What the operator asked `boot` for, read and checked before anything is touched. Pure.

Invariant: whoever holds a `Request` asks nobody whether it makes sense; whether there is room for
it is the nodes' to say.
"""

import enum
from dataclasses import dataclass
from typing import Final

from minicloud.domain.names import check_name
from minicloud.domain.plan import parse_network
from minicloud.errors import UsageError
from minicloud.model.guest import GuestKind
from minicloud.model.inventory import Template
from minicloud.model.sizes import size_text
from nbdserve.params import TIMEOUT

__all__ = ["Event", "Request", "Wait", "check_request", "parse_wait"]

_PATIENCE: Final = 300.0  # seconds a guest may take to come up, where nobody said how long


class Event(enum.StrEnum):
    """What a guest is waited for."""

    SSH = "ssh"  # an ssh server answers at an address of it
    CONSOLE = "console"  # its serial console says a line


@dataclass(frozen=True, slots=True)
class Wait:
    """Waiting for a guest that was started.

    Attributes:
        event: that ends it.
        text: stands in the console's line; "" is any.
        seconds: it may take.
    """

    event: Event
    text: str = ""
    seconds: float = _PATIENCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A guest to be made.

    Attributes:
        template: what of.
        name: checked.
        kind: cattle or pet.
        size: bytes of its disk; None is the template's.
        memory: bytes.
        vcpus: how many.
        network: as in the inventory's defaults.
        tags: the node has all of them.
        hostname: what it calls itself.
    """

    template: Template
    name: str
    kind: GuestKind
    size: int | None
    memory: int
    vcpus: int
    network: str
    tags: tuple[str, ...]
    hostname: str


def check_request(request: Request) -> Request:
    """Return a request that the template allows.

    Raises:
        UsageError: it asks for less than the template needs, or for a network there cannot be.
    """
    template = request.template
    size = template.size if request.size is None else request.size
    if size is not None and size < template.minimum_size:
        raise UsageError(_too_small("--size", size, template, template.minimum_size))
    if request.memory < template.minimum_memory:
        raise UsageError(_too_small("--memory", request.memory, template, template.minimum_memory))
    if request.vcpus < 1:
        raise UsageError(f"{request.vcpus} vCPUs start no guest; write at least 1")
    parse_network(request.network)
    for label in request.hostname.split("."):
        check_name(label)
    return request


def parse_wait(text: str) -> Wait:
    """Read `ssh`, `console`, `console:TEXT` or a time (which waits for ssh that long).

    Raises:
        ValueError: it is none of these.
    """
    event, colon, said = text.partition(":")
    if event == Event.CONSOLE and bool(colon) is bool(said):
        return Wait(Event.CONSOLE, said)
    if text == Event.SSH:
        return Wait(Event.SSH)
    try:
        return Wait(Event.SSH, seconds=TIMEOUT.parse(text))
    except ValueError:
        raise ValueError("ssh, console, console:TEXT or a time, after a =") from None


def _too_small(option: str, value: int, template: Template, minimum: int) -> str:
    return (
        f"{option} {size_text(value)} is too little for {template.name}; "
        f"it needs at least {size_text(minimum)}"
    )
