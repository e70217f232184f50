"""One request to nbdserve's control socket and its answer, over any pair of streams.

A connection a request: there is nothing to lose when nbdserve is started again between two of them,
and several may be under way at once.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

from minicloud.errors import NodeError, StorageError
from nbdserve.control.codec import (
    LONGEST_REPLY,
    LONGEST_REQUEST,
    LineReader,
    encode_request,
    parse_reply,
)
from nbdserve.control.messages import Failure, Progress, Reply, Request
from nbdserve.errors import ProtocolError

__all__ = ["Dial", "Reader", "Told", "Writer", "dial_local", "exchange"]

_RECEIVE: Final = 256 << 10


class Reader(Protocol):
    """The part of asyncio's and asyncssh's readers that is used here."""

    async def read(self, n: int = -1, /) -> bytes:
        """Return some bytes, none at the end."""


class Writer(Protocol):
    """Likewise of their writers."""

    def write(self, data: bytes, /) -> None:
        """Take bytes to send."""

    async def drain(self) -> None:
        """Wait until they can be sent."""

    def close(self) -> None:
        """End the connection."""

    async def wait_closed(self) -> None:
        """Wait until it has ended."""


Dial = Callable[[str], Awaitable[tuple[Reader, Writer]]]
"""Connects to a Unix socket by its path; OSError or NodeError where that fails."""

Told = Callable[[Mapping[str, Any]], None]
"""Called with what nbdserve reports of a long command."""


async def exchange(
    dial: Dial, path: str, command: str, given: Mapping[str, Any], *, where: str, on_progress: Told
) -> Mapping[str, Any]:
    """Have nbdserve carry a command out.

    Args:
        dial: leads to its machine.
        path: of the control socket there.
        command: its name.
        given: its arguments.
        where: how that machine is called in messages.
        on_progress: told how far it has come.

    Raises:
        StorageError: it said no (the kind is its own), or there was no answer (`unreachable`).
    """
    request = encode_request(Request(1, command, given))
    if len(request) > LONGEST_REQUEST:
        raise StorageError("argument", f"{command} is {len(request)} bytes, too much to ask for")
    reader, writer = await _connected(dial, path, where)
    try:
        with contextlib.suppress(OSError, NodeError):  # who refuses us has closed, and says why
            writer.write(request)
            await writer.drain()
        reply = await _result(reader, on_progress)
    except (OSError, NodeError) as exc:
        raise _unreachable(f"the connection to nbdserve on {where} broke: {exc}") from exc
    except ProtocolError as exc:
        raise _unreachable(
            f"what answers at {path} on {where} is no control socket of nbdserve ({exc}); name it "
            "as control in [nbd]"
        ) from exc
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    if reply is None:
        raise _unreachable(f"nbdserve on {where} closed the control connection; see its log")
    if isinstance(reply, Failure):
        raise StorageError(str(reply.kind), reply.message)
    return reply.facts


async def _connected(dial: Dial, path: str, where: str) -> tuple[Reader, Writer]:
    try:
        return await dial(path)
    except (FileNotFoundError, ConnectionRefusedError) as exc:
        raise _unreachable(
            f"no nbdserve has its control socket at {path} on {where}; start nbdserve with "
            f"--control {path}, or name its socket as control in [nbd]"
        ) from exc
    except PermissionError as exc:
        raise _unreachable(
            f"no permission to use nbdserve's control socket {path} on {where}; be root or the "
            "user it runs as"
        ) from exc
    except NodeError as exc:
        raise _unreachable(f"nbdserve on {where} cannot be reached: {exc}") from exc
    except OSError as exc:
        raise _unreachable(
            f"cannot connect to nbdserve's control socket {path} on {where}: {exc}"
        ) from exc


async def _result(reader: Reader, on_progress: Told) -> Reply | None:
    lines = LineReader(LONGEST_REPLY)
    while True:
        data = b""
        while (line := lines.next_line()) is None:
            begun = bool(data)
            data = await reader.read(_RECEIVE)
            if not data and begun:
                raise ProtocolError("its answer is no line; is it the socket for NBD clients?")
            if not data:
                return None
            lines.receive_data(data)
        reply = parse_reply(line)
        if not isinstance(reply, Progress):
            return reply
        on_progress(reply.facts)


def _unreachable(message: str) -> StorageError:
    return StorageError("unreachable", message)


async def dial_local(path: str) -> tuple[Reader, Writer]:
    """Connect on this machine."""
    return await asyncio.open_unix_connection(path)
