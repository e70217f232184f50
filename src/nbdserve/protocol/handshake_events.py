"""What the server's half of the handshake asks of its driver, and what it ends with."""

import dataclasses
import enum
from typing import Final

from nbdserve.protocol.constants import Option
from nbdserve.protocol.messages import Negotiated

__all__ = [
    "NEED_DATA",
    "Aborted",
    "Event",
    "ExportRequested",
    "ListRequested",
    "NeedData",
    "Ready",
    "TlsRequested",
]


class NeedData(enum.Enum):
    """The type of `NEED_DATA`."""

    NEED_DATA = enum.auto()


NEED_DATA: Final = NeedData.NEED_DATA
"""Nothing can be decided before `receive_data` brings more."""


# Dataclasses where the transmission phase has NamedTuples: two of them without fields would be
# equal, and false.
@dataclasses.dataclass(frozen=True, slots=True)
class ListRequested:
    """The client wants to know the exports."""


@dataclasses.dataclass(frozen=True, slots=True)
class ExportRequested:
    """The client names an export: does it exist, and what is it?

    Attributes:
        name: as the client has it; "" is the default export.
        option: what it is named for.
    """

    name: str
    option: Option


@dataclasses.dataclass(frozen=True, slots=True)
class TlsRequested:
    """The client wants TLS, which was offered."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ready:
    """The handshake is over; the transmission phase begins once everything queued was sent."""

    negotiated: Negotiated


@dataclasses.dataclass(frozen=True, slots=True)
class Aborted:
    """The client has left; its acknowledgement is queued."""


Event = NeedData | ListRequested | ExportRequested | TlsRequested | Ready | Aborted
