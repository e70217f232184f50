"""Whether a request may reach the device: each is checked once, here, so no device checks again.

Pure: request and export facts in, a refusal or None out. What is refused how is the table of the
spec's "Request types", with the errors that clients act upon: EPERM on a read-only export, ENOSPC
for writing past the end, EINVAL for everything else that is malformed.
"""

from typing import NamedTuple

from nbdserve.protocol.constants import (
    MAX_PAYLOAD,
    Command,
    CommandFlag,
    TransmissionFlag,
    WireError,
)
from nbdserve.protocol.messages import Negotiated, ReplyMode, Request

__all__ = ["Refusal", "refusal"]


class Refusal(NamedTuple):
    """Why a request is not carried out: the wire error and a text for the client."""

    error: WireError
    text: str


# Every command takes FUA: Linux sets it on reads. DF needs structured replies, checked below.
_FLAGS = {
    Command.READ: CommandFlag.FUA | CommandFlag.DF,
    Command.WRITE: CommandFlag.FUA | CommandFlag.PAYLOAD_LEN,
    Command.DISC: CommandFlag.FUA,
    Command.FLUSH: CommandFlag.FUA,
    Command.TRIM: CommandFlag.FUA,
    Command.CACHE: CommandFlag.FUA,
    Command.WRITE_ZEROES: CommandFlag.FUA | CommandFlag.NO_HOLE | CommandFlag.FAST_ZERO,
    Command.BLOCK_STATUS: CommandFlag.FUA | CommandFlag.REQ_ONE,
}
_WRITES = frozenset({Command.WRITE, Command.TRIM, Command.WRITE_ZEROES})
_NO_SPACE = frozenset({Command.WRITE, Command.WRITE_ZEROES})
_NEEDS = {
    Command.FLUSH: TransmissionFlag.SEND_FLUSH,
    Command.TRIM: TransmissionFlag.SEND_TRIM,
    Command.CACHE: TransmissionFlag.SEND_CACHE,
    Command.WRITE_ZEROES: TransmissionFlag.SEND_WRITE_ZEROES,
}


def refusal(request: Request, negotiated: Negotiated) -> Refusal | None:
    """Say why a request must be refused, or None if it may be carried out."""
    try:
        command = Command(request.type)
    except ValueError:
        return Refusal(WireError.EINVAL, f"unknown command {request.type}")
    return (
        _flags(request, command, negotiated)
        or _capability(command, request, negotiated)
        or _range(request, command, negotiated)
    )


def _flags(request: Request, command: Command, negotiated: Negotiated) -> Refusal | None:
    extra = request.flags & ~int(_FLAGS[command])
    if extra:
        return Refusal(WireError.EINVAL, f"flags {extra:#06x} do not go with {command.name}")
    if request.flags & CommandFlag.DF and negotiated.mode is ReplyMode.SIMPLE:
        return Refusal(WireError.EINVAL, "DF needs structured replies")
    if request.flags & CommandFlag.PAYLOAD_LEN and negotiated.mode is not ReplyMode.EXTENDED:
        return Refusal(WireError.EINVAL, "PAYLOAD_LEN needs extended headers")
    if (
        request.flags & CommandFlag.FAST_ZERO
        and not negotiated.export.flags & TransmissionFlag.SEND_FAST_ZERO
    ):
        return Refusal(WireError.EINVAL, "FAST_ZERO was not offered by this export")
    return None


def _capability(command: Command, request: Request, negotiated: Negotiated) -> Refusal | None:
    flags = negotiated.export.flags
    if command in _WRITES and flags & TransmissionFlag.READ_ONLY:
        return Refusal(WireError.EPERM, "this export is read-only")
    needed = _NEEDS.get(command)
    if needed is not None and not flags & needed:
        return Refusal(WireError.EINVAL, f"{command.name} was not offered by this export")
    if command is Command.BLOCK_STATUS:
        if not negotiated.base_allocation:
            return Refusal(WireError.EINVAL, "no meta context was negotiated")
        if request.length == 0:
            return Refusal(WireError.EINVAL, "block status of no bytes")
    return None


def _range(request: Request, command: Command, negotiated: Negotiated) -> Refusal | None:
    offset, length, export = request.offset, request.length, negotiated.export
    if command in (Command.FLUSH, Command.DISC):
        if offset or length:
            return Refusal(WireError.EINVAL, f"{command.name} takes no range")
        return None
    if command in (Command.READ, Command.WRITE) and length > MAX_PAYLOAD:
        return Refusal(WireError.EINVAL, f"{length} bytes at once; at most {MAX_PAYLOAD}")
    if offset + length > export.size:
        error = WireError.ENOSPC if command in _NO_SPACE else WireError.EINVAL
        return Refusal(
            error, f"offset {offset} length {length} is past the end, size {export.size}"
        )
    if export.minimum > 1:
        # The unaligned tail of an export can still be reached: a request may end at its size.
        end_aligned = (offset + length) % export.minimum == 0 or offset + length == export.size
        if offset % export.minimum or not end_aligned:
            return Refusal(
                WireError.EINVAL, f"not aligned to the minimum block size {export.minimum}"
            )
    return None
