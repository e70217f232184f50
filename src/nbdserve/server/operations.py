"""What a validated request makes a device do, and the reply that makes: one coroutine a command.

Each returns the buffers of its reply, encoded only when nothing can fail any more; a failure is
raised and becomes an error reply in the caller.
"""

from collections.abc import Awaitable, Callable, Sequence

from nbdserve.device import Capability, Device
from nbdserve.errors import DeviceError
from nbdserve.extents import DATA, Extent, clip, coalesce
from nbdserve.protocol.constants import Command, CommandFlag
from nbdserve.protocol.messages import Request
from nbdserve.protocol.replies import Replies

__all__ = ["Buffers", "perform", "read_into", "read_reply"]

Buffers = Sequence[bytes | memoryview]

_MOST_EXTENTS = 4096  # a reply of 32 or 64 KiB; the client asks again from where it stops
_PROBE = bytes(16)
_ZEROES = bytes(1 << 20)


async def perform(device: Device, request: Request, replies: Replies) -> Buffers:
    """Carry out a validated request other than DISC and return its reply.

    Raises:
        DeviceError: and whatever else the device raises; no reply was made.
    """
    return await _OPERATIONS[Command(request.type)](device, request, replies)


def read_reply(request: Request, view: memoryview, replies: Replies) -> Buffers:
    """Make the reply to a READ whose bytes, one or more, are in `view`: a hole if all are zero."""
    if (
        replies.can_hole
        and not view[0]  # nearly always settles it, at a fifth of the cost
        and view[:16] == _PROBE
        and not request.flags & CommandFlag.DF
        and _is_zero(view)
    ):
        return (replies.hole(request),)
    return (replies.data(request), view)


def _is_zero(view: memoryview) -> bool:
    # startswith is a memcmp without a copy; comparing memoryviews goes byte by byte
    step = len(_ZEROES)
    return all(_ZEROES.startswith(view[at : at + step]) for at in range(0, len(view), step))


async def read_into(
    device: Device, request: Request, view: memoryview, replies: Replies
) -> Buffers:
    """Carry out a validated READ of some bytes, into `view`, and return its reply."""
    await device.read_into(request.offset, view)
    return read_reply(request, view, replies)


async def _read(device: Device, request: Request, replies: Replies) -> Buffers:
    if not request.length:
        return (replies.done(request),)
    return await read_into(device, request, memoryview(bytearray(request.length)), replies)


async def _write(device: Device, request: Request, replies: Replies) -> Buffers:
    fua, flush = _durability(device, request)
    if request.payload is not None and request.length:
        await device.write(request.offset, request.payload, fua=fua)
    return await _finish(device, request, replies, flush=flush)


async def _write_zeroes(device: Device, request: Request, replies: Replies) -> Buffers:
    fua, flush = _durability(device, request)
    if request.length:
        await device.write_zeroes(
            request.offset,
            request.length,
            fua=fua,
            may_trim=not request.flags & CommandFlag.NO_HOLE,
            fast=bool(request.flags & CommandFlag.FAST_ZERO),
        )
    return await _finish(device, request, replies, flush=flush)


async def _trim(device: Device, request: Request, replies: Replies) -> Buffers:
    fua, flush = _durability(device, request)
    if request.length:
        await device.trim(request.offset, request.length, fua=fua)
    return await _finish(device, request, replies, flush=flush)


def _durability(device: Device, request: Request) -> tuple[bool, bool]:
    """Tell how to make a write durable if it is to be: by FUA, or by a flush after it."""
    wanted = bool(request.flags & CommandFlag.FUA) and request.length > 0
    native = bool(device.info.can & Capability.FUA)
    return wanted and native, wanted and not native


async def _finish(device: Device, request: Request, replies: Replies, *, flush: bool) -> Buffers:
    if flush:
        await device.flush()
    return (replies.done(request),)


async def _flush(device: Device, request: Request, replies: Replies) -> Buffers:
    await device.flush()
    return (replies.done(request),)


async def _cache(device: Device, request: Request, replies: Replies) -> Buffers:
    if request.length:
        await device.cache(request.offset, request.length)
    return (replies.done(request),)


async def _block_status(device: Device, request: Request, replies: Replies) -> Buffers:
    offset, length = request.offset, request.length
    found: list[Extent] = []
    covered = 0
    while covered < length and len(found) < _MOST_EXTENTS:
        more = await device.extents(offset + covered, length - covered)
        step = sum(extent.length for extent in more)
        if step <= 0:
            raise DeviceError(f"no extents at offset {offset + covered}; the device is at fault")
        found.extend(more)
        covered += step
        if request.flags & CommandFlag.REQ_ONE:
            break
    # Devices are trusted to describe, not to count: lengths of 0 or beyond the request crashed
    # other servers and clients (CVE-2025-47711, CVE-2025-47712).
    extents = _aligned(clip(coalesce(found), length), length, device.info.block_size.minimum)[
        :_MOST_EXTENTS
    ]
    if request.flags & CommandFlag.REQ_ONE:
        extents = extents[:1]
    return (replies.block_status(request, extents),)


def _aligned(extents: list[Extent], length: int, unit: int) -> list[Extent]:
    """Round extents to the minimum block size: a block in two states counts as data."""
    if unit == 1:
        return extents
    rounded: list[Extent] = []
    start = end = 0  # relative to the request, which is aligned
    for extent in extents:
        end += extent.length
        stop = end if end == length else end - end % unit
        if stop > start:
            rounded.append(Extent(stop - start, extent.state))
            start = stop
        if end > start and end % unit:
            whole = min(start + unit, length)
            rounded.append(Extent(whole - start, DATA))
            start = whole
    return coalesce(rounded)


_OPERATIONS: dict[Command, Callable[[Device, Request, Replies], Awaitable[Buffers]]] = {
    Command.READ: _read,
    Command.WRITE: _write,
    Command.WRITE_ZEROES: _write_zeroes,
    Command.TRIM: _trim,
    Command.FLUSH: _flush,
    Command.CACHE: _cache,
    Command.BLOCK_STATUS: _block_status,
}
