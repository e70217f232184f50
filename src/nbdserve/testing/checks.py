"""What tests of devices do and assert again and again, each once.

A check raises AssertionError and says at which byte; a call given to it is always awaited or
cancelled before it returns.
"""

import asyncio
from collections.abc import Awaitable, Iterable
from itertools import pairwise

from nbdserve.device import Device
from nbdserve.extents import State
from nbdserve.testing.model import Model, Range

__all__ = ["at_once", "cancel_after", "check_bytes", "check_extents", "locatable", "read_slowly"]

_KNOWN_STATES = State.HOLE | State.ZERO


def locatable(seed: int, length: int) -> bytes:
    """Make bytes that tell their place: each 8-byte word is a mark and its own offset."""
    mark = (seed % 255 + 1) << 56
    words = b"".join((mark | at).to_bytes(8, "big") for at in range(0, length, 8))
    return words[:length]


async def read_slowly(device: Device, part: Range) -> bytes:
    """Read a range by `read_into`, even where it could be had without waiting."""
    buffer = bytearray(b"\xa5") * part.length  # what is not filled shows
    await device.read_into(part.offset, memoryview(buffer))
    return bytes(buffer)


async def check_bytes(device: Device, model: Model, part: Range) -> None:
    """Read a range all ways and compare it with what it must hold."""
    complaint = model.complaint(part.offset, await read_slowly(device, part))
    assert complaint is None, complaint
    buffer = bytearray(b"\x5a") * part.length
    if device.read_into_nowait(part.offset, memoryview(buffer)):
        complaint = model.complaint(part.offset, bytes(buffer))
        assert complaint is None, f"without waiting: {complaint}"
    buffer = bytearray(b"\xa5") * part.length
    outcome: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    if device.begin_read(part.offset, memoryview(buffer), outcome.set_result):
        assert not outcome.done(), "done is called later"
        error = await outcome
        complaint = str(error) if error else model.complaint(part.offset, bytes(buffer))
        assert complaint is None, f"without a task: {complaint}"
    else:
        assert not outcome.done(), "what was not begun is not told of"


async def check_extents(device: Device, part: Range) -> None:
    """Walk the extents of a range: whole, well formed, and zero where they say so."""
    position = part.offset
    while position < part.end:
        extents = await device.extents(position, part.end - position)
        assert extents, f"no extents at {position}"
        for one, other in pairwise(extents):
            assert one.state != other.state, f"not coalesced after {position}: {extents}"
        for length, state in extents:
            assert length > 0, f"an empty extent after {position}: {extents}"
            assert not state & ~_KNOWN_STATES, f"an unknown state at {position}: {state!r}"
            assert position + length <= part.end, f"extents beyond the range: {extents}"
            if state & State.ZERO:
                zeroes = not any(await device.read(position, length))
                assert zeroes, f"an extent at {position}+{length} is not zero"
            position += length


async def at_once(calls: Iterable[Awaitable[object]]) -> None:
    """Make all calls at the same time and await them all; raise the first failure."""
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    for outcome in outcomes:
        assert not isinstance(outcome, asyncio.CancelledError), "a call nobody cancelled was"
        if isinstance(outcome, BaseException):
            raise outcome


async def cancel_after(turns: int, calls: Iterable[Awaitable[object]]) -> None:
    """Begin all calls, cancel them after some turns of the event loop, and await their end.

    A call may return before it is cancelled; if it fails, that failure is raised.
    """
    begun = [asyncio.ensure_future(call) for call in calls]
    for _ in range(turns):
        await asyncio.sleep(0)
    for call in begun:
        call.cancel()
    outcomes = await asyncio.gather(*begun, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
