"""What both phases of the protocol speak of: plain values, no behaviour.

Wire events are NamedTuples: made in a flat loop, thousands a second, and compared in tests.
"""

import enum
from dataclasses import dataclass
from typing import NamedTuple

from nbdserve.protocol.constants import TransmissionFlag

__all__ = [
    "BASE_ALLOCATION",
    "BASE_ALLOCATION_ID",
    "ExportFacts",
    "Negotiated",
    "ReplyMode",
    "Request",
]

BASE_ALLOCATION = "base:allocation"
BASE_ALLOCATION_ID = 1
"""The id this server gives base:allocation; the spec leaves the number to the server."""


class ReplyMode(enum.IntEnum):
    """How replies are framed; each mode includes what the ones before it can."""

    SIMPLE = 0
    STRUCTURED = 1
    EXTENDED = 2


@dataclass(frozen=True, slots=True)
class ExportFacts:
    """What the wire tells of an export.

    Attributes:
        name: the export's name.
        description: free text, possibly empty.
        size: bytes.
        flags: transmission flags; HAS_FLAGS is always set, SEND_DF is added by the handshake
            when structured replies were negotiated.
        minimum: smallest block, bytes, a power of two.
        preferred: preferred block, bytes.
        maximum: largest payload, bytes.
    """

    name: str
    description: str
    size: int
    flags: TransmissionFlag
    minimum: int
    preferred: int
    maximum: int


class Negotiated(NamedTuple):
    """The outcome of a handshake.

    Attributes:
        export: the export that GO or EXPORT_NAME chose.
        mode: how replies are framed.
        base_allocation: whether base:allocation was selected for this very export.
    """

    export: ExportFacts
    mode: ReplyMode
    base_allocation: bool


class Request(NamedTuple):
    """One request header, as it came.

    Attributes:
        flags: raw command flags (16 bits).
        type: raw command (16 bits): an unknown one is answered, not an exception.
        cookie: the client's, echoed in the reply.
        offset: bytes.
        length: bytes; the payload's length in an extended request with PAYLOAD_LEN.
        payload: the bytes of a WRITE that was accepted; its reader's own until it is carried out.
    """

    flags: int
    type: int
    cookie: int
    offset: int
    length: int
    payload: memoryview | None = None
