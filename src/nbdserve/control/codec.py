"""The control protocol, version 1: a line of JSON each way. Pure: bytes in, messages out.

    {"v": 1, "id": 7, "command": "warm", "arguments": {"export": "debian"}}
    {"v": 1, "id": 7, "progress": {"done": 16777216, "length": 3221225472}}
    {"v": 1, "id": 7, "result": {"bytes": 3221225472}}
    {"v": 1, "id": 7, "error": {"kind": "unknown-export", "message": "…"}}

`id` and `arguments` may be left out (0, none), so that a request can be typed by hand. Keys that
are not known are ignored, so that a later version may add some.

Invariant: whatever comes in, no more than the limit of a line and one chunk are held.
"""

import json
from typing import Any, Final

from nbdserve.control.messages import (
    CommandError,
    Failure,
    FailureKind,
    Progress,
    Reply,
    Request,
    Result,
)
from nbdserve.errors import ProtocolError

__all__ = [
    "LONGEST_REPLY",
    "LONGEST_REQUEST",
    "VERSION",
    "LineReader",
    "encode_reply",
    "encode_request",
    "parse_reply",
    "parse_request",
]

VERSION: Final = 1
LONGEST_REQUEST: Final = 1 << 20
"""Bytes of a request's line.

An export of many layers has a few hundred; one whose `data` source brings a cloud-init seed of
512 KiB in base64 has 700 thousand. A client that sends such a line and nothing else costs that
much, a few times over while the line is parsed: with 16 clients some 16 MiB, at worst 64.
"""
LONGEST_REPLY: Final = 64 << 20
"""Bytes of a reply's line: the status of a hundred thousand exports."""


class LineReader:
    """Cuts received bytes into lines.

    Args:
        longest: bytes a line may have.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._data = bytearray()
        self._looked_at = 0

    @property
    def is_full(self) -> bool:
        """Whether a line can be taken or the peer is at fault: receive no more before that."""
        return len(self._data) > self._longest

    def receive_data(self, data: bytes) -> None:
        """Take what came in."""
        self._data += data

    def next_line(self) -> bytes | None:
        """Return the next whole line without its end, or None.

        Raises:
            ProtocolError: it is too long; nothing more can be made of what follows.
        """
        end = self._data.find(b"\n", self._looked_at)
        self._looked_at = len(self._data)
        if (len(self._data) if end < 0 else end) > self._longest:
            raise ProtocolError(f"a line of more than {self._longest} bytes")
        if end < 0:
            return None
        line = bytes(self._data[:end])
        del self._data[: end + 1]
        self._looked_at = 0
        return line


def encode_request(request: Request) -> bytes:
    """Write a request as a line."""
    fields = {"command": request.command, "arguments": dict(request.arguments)}
    return _encode(request.id, fields)


def encode_reply(reply: Reply) -> bytes:
    """Write a reply as a line."""
    match reply:
        case Progress():
            return _encode(reply.id, {"progress": dict(reply.facts)})
        case Result():
            return _encode(reply.id, {"result": dict(reply.facts)})
        case Failure():
            error = {"kind": str(reply.kind), "message": reply.message}
            return _encode(reply.id, {"error": error})


def parse_request(line: bytes) -> Request:
    """Read a request.

    Raises:
        ProtocolError: it is none.
        CommandError: it is one of another version.
    """
    fields = _parse(line)
    if fields.get("v") != VERSION:
        raise CommandError(
            FailureKind.VERSION, f"version {fields.get('v')!r} is not spoken here, only {VERSION}"
        )
    command, arguments = fields.get("command"), fields.get("arguments", {})
    if not isinstance(command, str) or not isinstance(arguments, dict):
        raise ProtocolError("a request has a command, and arguments by name")
    return Request(_id(fields), command, arguments)


def parse_reply(line: bytes) -> Reply:
    """Read a reply.

    Raises:
        ProtocolError: it is none, or of another version.
    """
    fields = _parse(line)
    if fields.get("v") != VERSION:
        raise ProtocolError(f"it speaks version {fields.get('v')!r}, not {VERSION}")
    error = fields.get("error")
    if isinstance(error, dict):
        kind = str(error.get("kind"))
        known = FailureKind(kind) if kind in set(FailureKind) else FailureKind.INTERNAL
        return Failure(_id(fields), known, str(error.get("message")))
    for key, made in (("progress", Progress), ("result", Result)):
        facts = fields.get(key)
        if isinstance(facts, dict):
            return made(_id(fields), facts)
    raise ProtocolError("a reply has a result, progress or an error")


def _encode(number: int, fields: dict[str, Any]) -> bytes:
    # ASCII, so that no name in it can end the line or upset a terminal
    return json.dumps({"v": VERSION, "id": number, **fields}).encode("ascii") + b"\n"


def _parse(line: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise ProtocolError(f"a line that is no JSON: {exc}") from None
    if not isinstance(fields, dict):
        raise ProtocolError("a line that is no JSON object")
    return fields


def _id(fields: dict[str, Any]) -> int:
    number = fields.get("id", 0)
    if not isinstance(number, int):
        raise ProtocolError("an id is a number")
    return number
