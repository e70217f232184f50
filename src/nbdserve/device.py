"""Device: what sources and layers both are, so that they compose into a chain.

The caller owns every buffer; a device fills or consumes it. Three classes, so that nothing passes
through a layer by accident: `Device` derives safe defaults from its own primitives; `Layer` adds
`inner` and forwards nothing; `Passthrough` forwards everything and is only for layers that leave
each byte where it is. (A filter that forwards what it does not know corrupts data as soon as it
moves a byte.)

Contract, checked by `nbdserve.testing.conformance`:

- The server has validated range, alignment, flags and capability before it calls.
- Calls overlap freely: two reads, or a read and a write of different ranges, are independent.
- No short reads: a buffer is filled whole, or the call raises `DeviceError`.
- A cancelled call leaves the device usable, but its buffer may be written to for a while longer:
  the caller drops that buffer and never reuses it.
- Once `flush` returns, every write that had returned before it was called is durable.
"""

import abc
import enum
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from nbdserve.errors import NotSupportedError, ReadOnlyError
from nbdserve.extents import DATA, Extent

__all__ = [
    "BlockSize",
    "Capability",
    "Device",
    "DeviceInfo",
    "Done",
    "FileRange",
    "Layer",
    "NoParams",
    "Passthrough",
]

Done = Callable[[Exception | None], None]
"""Takes the outcome of a read or write that was begun: None, or what went wrong."""

_ZERO_CHUNK = 1 << 20  # default write_zeroes writes this much at a time: bounds memory, not speed
_CACHE_CHUNK = 1 << 20
_STREAM_CHUNK = 1 << 20


class Capability(enum.Flag):
    """What a device can do beyond reading."""

    NONE = 0
    WRITE = enum.auto()
    FLUSH = enum.auto()
    FUA = enum.auto()
    TRIM = enum.auto()
    WRITE_ZEROES = enum.auto()
    FAST_ZERO = enum.auto()
    CACHE = enum.auto()
    EXTENTS = enum.auto()
    ROTATIONAL = enum.auto()

    WRITES = WRITE | FLUSH | FUA | TRIM | WRITE_ZEROES | FAST_ZERO


class BlockSize(NamedTuple):
    """Block size constraints in bytes, as NBD_INFO_BLOCK_SIZE tells them to the client."""

    minimum: int = 1
    preferred: int = 4096
    maximum: int = 32 << 20


_DEFAULT_BLOCK_SIZE = BlockSize()


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """What a device is; constant while it is open.

    Attributes:
        size: length of the device in bytes.
        block_size: the sizes its requests should have.
        can: its capabilities.
        streams: how many `stream`s and reads that wait it carries at once, where it has few
            connections: one more waits for another to end. None: as many as you like.
    """

    size: int
    block_size: BlockSize = _DEFAULT_BLOCK_SIZE
    can: Capability = Capability.NONE
    streams: int | None = None


class FileRange(NamedTuple):
    """A place in an open file: `fd`, and the byte `offset` in it."""

    fd: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NoParams:
    """The parameters of an element that takes none."""


class Device(abc.ABC):
    """A block device of fixed size.

    A source is a `Device` constructed as `Source(params)`. Its `Params` is a frozen dataclass made
    with `nbdserve.params`; its docstring is its help page.

    Attributes:
        Params: its parameters.
        shareable: whether one such device, opened read-only, may serve several chains at once. It
            then answers all of them alike and keeps nothing that is only one chain's; its params
            are hashable.
        writable: whether it ever takes writes; what does not is opened read-only.
    """

    Params: ClassVar[type[Any]] = NoParams
    shareable: ClassVar[bool] = False
    writable: ClassVar[bool] = True

    @classmethod
    def keeps(cls, params: Any) -> Sequence[Path]:  # noqa: ARG003 -- for who overrides it
        """List the files that hold what was written to a device of these params, and only that.

        They are deleted with an export, if that is asked for.
        """
        return ()

    async def open(self, *, read_only: bool) -> None:
        """Make the device usable; called once, by the builder, after `inner` was opened.

        Args:
            read_only: nothing above will write; do not ask for more rights than reading takes.

        Raises:
            DeviceError: the device cannot be had; nothing is left open.
        """

    async def close(self) -> None:
        """Release what `open` acquired; called once, by the builder, when no call is under way."""

    @property
    @abc.abstractmethod
    def info(self) -> DeviceInfo:
        """Facts about the open device. No I/O."""

    @property
    def identity(self) -> str | None:
        """Name these contents so that they are told from any others, after a restart too.

        Two devices of one identity hold the same bytes as long as they live, so what was read of
        one may be kept and served for the other. None if that cannot be promised.
        """
        return None

    def status(self) -> Mapping[str, int | float | str | bool]:
        """Tell facts about the running device (counters, progress) to who watches it; no I/O."""
        return {}

    @abc.abstractmethod
    async def read_into(self, offset: int, view: memoryview) -> None:
        """Fill all of `view` (format B, contiguous, writable) from `offset`, or raise."""

    def read_into_nowait(self, offset: int, view: memoryview) -> bool:
        """Fill all of `view` at once if that takes no waiting.

        Never blocks, never changes any state but counters, never raises for lack of data.

        Returns:
            True if `view` was filled; False if the caller must use `read_into` (`view` is then
            undefined).
        """
        return False

    def begin_read(self, offset: int, view: memoryview, done: Done) -> bool:
        """Begin a read that has to wait, if it needs no task of its own to be carried out.

        Never blocks. What is begun cannot be cancelled; a caller that goes away lets go of `view`.

        Args:
            offset: where to read, in bytes.
            view: filled, all of it; the device's until `done` is called.
            done: called once on the event loop, never before this returns, with None or with what
                `read_into` would have raised.

        Returns:
            False if nothing was begun: the caller must use `read_into`, and `done` is never called.
        """
        return False

    async def stream(self, offset: int, length: int) -> AsyncGenerator[bytes | memoryview, None]:
        """Yield the bytes of the range in order, as they come, in pieces of any size but 0.

        One read to whatever lies beneath, where that can be: for who works on the first bytes
        while the last are still on their way, or could not hold all of them. Nothing is fetched
        much ahead of what is taken. The pieces are the caller's. Close it (`aclosing`) to stop
        early; what was not taken is then not fetched.

        Raises:
            DeviceError: as a read does; what was yielded before is right all the same.
        """
        done = 0
        while done < length:
            view = memoryview(bytearray(min(length - done, _STREAM_CHUNK)))
            if not self.read_into_nowait(offset + done, view):
                await self.read_into(offset + done, view)
            yield view
            done += len(view)

    def file_range(self, offset: int, length: int) -> FileRange | None:
        """Tell where these bytes lie in an open file, for a zero-copy send; None is always right.

        The descriptor stays open and the bytes stay put until the device is closed or the range
        is written.
        """
        return None

    async def write(self, offset: int, data: memoryview, *, fua: bool) -> None:
        """Write `data` at `offset`; with `fua`, return only when it is durable.

        `data` is the caller's again when the call returns; a device that keeps it copies it.
        """
        raise ReadOnlyError("this device cannot be written")

    def write_nowait(self, offset: int, data: memoryview, *, fua: bool, done: Done) -> bool:
        """Begin a write that needs no task of its own to be carried out.

        Never blocks. What is begun runs to its end and cannot be cancelled. `fua` is asked for only
        of a device that can.

        Args:
            offset: where to write, in bytes.
            data: what; the device's until `done` is called.
            fua: be done only when it is durable.
            done: called once on the event loop, perhaps before this returns, with None or with
                what `write` would have raised.

        Returns:
            False if nothing was begun: the caller must use `write`, and `done` is never called.
        """
        return False

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool, may_trim: bool, fast: bool
    ) -> None:
        """Make the range read as zeroes.

        Args:
            offset: start of the range in bytes.
            length: its length in bytes, up to the whole device.
            fua: return only when it is durable.
            may_trim: the range may become a hole; else it stays allocated.
            fast: raise `NotSupportedError` at once, contents untouched, unless this is much
                faster than writing zeroes.
        """
        if fast:
            raise NotSupportedError("writing zeroes is not faster than writing data here")
        zeroes = memoryview(bytes(min(length, _ZERO_CHUNK)))
        done = 0
        while done < length:
            step = min(length - done, _ZERO_CHUNK)
            # FUA on each chunk: durable when the last one returns, without a second primitive
            await self.write(offset + done, zeroes[:step], fua=fua)
            done += step

    async def trim(self, offset: int, length: int, *, fua: bool) -> None:
        """Declare the range unneeded. It is a hint: its contents are then unspecified."""

    async def flush(self) -> None:
        """Make every write that has returned durable."""

    def flush_nowait(self, done: Done) -> bool:
        """Begin a flush that needs no task of its own; `done` and the result as `write_nowait`."""
        return False

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        """Describe the range: contiguous from `offset`, coalesced, at least one extent.

        May stop short of `length`, never beyond it.
        """
        return [Extent(length, DATA)]

    async def cache(self, offset: int, length: int) -> None:
        """Make the range fast to read. A hint: nothing is returned."""
        if not self.info.can & Capability.CACHE:
            return
        scratch = memoryview(bytearray(min(length, _CACHE_CHUNK)))
        done = 0
        while done < length:
            step = min(length - done, _CACHE_CHUNK)
            await self.read_into(offset + done, scratch[:step])
            done += step

    async def read(self, offset: int, length: int) -> bytes:
        """Read into a new buffer: convenience for headers, parsers and tests."""
        buffer = bytearray(length)
        with memoryview(buffer) as view:
            if not self.read_into_nowait(offset, view):
                await self.read_into(offset, view)
        return bytes(buffer)


class Layer(Device):
    """A device on top of another, which it borrows: the builder opens and closes `inner`.

    Constructed as `Layer(inner, params)`. Forwards nothing: a layer states all that it offers.

    Attributes:
        inner: the device beneath.
        writes_inner: whether a write above can become a write below. Where it is False, the
            builder opens everything beneath read-only.
        beneath: which elements lie beneath, the source first, one a line, with the parameters that
            are not the default: the same after a restart. Set by the builder before `open`, empty
            without one. It holds what the operator wrote, a password in a URL too: keep its hash.
    """

    writes_inner: ClassVar[bool] = True
    beneath: str = ""

    def __init__(self, inner: Device) -> None:
        self.inner = inner

    @property
    def survives_inner(self) -> bool:
        """Whether this layer may be opened though what lies beneath could not be.

        Asked before `open`, of a layer that was constructed on an `nbdserve.absent.Absent`. That
        is its `inner` then: `info` raises, and reads do so until the lower part could be opened.
        """
        return False

    async def is_ready_alone(self) -> bool:
        """Tell whether a lower part that does not answer for seconds is to be given up for now.

        Asked before `open` of a layer that survives without it, constructed likewise: True if it
        knows enough of what lies beneath to open without it and serve what it has.
        """
        return False


class Passthrough(Layer):
    """A layer that leaves each byte where it is and forwards every operation unchanged.

    Constructed as `Passthrough(inner, params)`; a subclass overrides what it watches or slows. Not
    forwarded are `begin_read`, `write_nowait` and `flush_nowait`: they would go past what a
    subclass overrides.
    """

    @property
    def info(self) -> DeviceInfo:
        return self.inner.info

    @property
    def identity(self) -> str | None:
        return self.inner.identity

    async def read_into(self, offset: int, view: memoryview) -> None:
        await self.inner.read_into(offset, view)

    def read_into_nowait(self, offset: int, view: memoryview) -> bool:
        return self.inner.read_into_nowait(offset, view)

    def stream(self, offset: int, length: int) -> AsyncGenerator[bytes | memoryview, None]:
        return self.inner.stream(offset, length)

    def file_range(self, offset: int, length: int) -> FileRange | None:
        return self.inner.file_range(offset, length)

    async def write(self, offset: int, data: memoryview, *, fua: bool) -> None:
        await self.inner.write(offset, data, fua=fua)

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool, may_trim: bool, fast: bool
    ) -> None:
        await self.inner.write_zeroes(offset, length, fua=fua, may_trim=may_trim, fast=fast)

    async def trim(self, offset: int, length: int, *, fua: bool) -> None:
        await self.inner.trim(offset, length, fua=fua)

    async def flush(self) -> None:
        await self.inner.flush()

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        return await self.inner.extents(offset, length)

    async def cache(self, offset: int, length: int) -> None:
        await self.inner.cache(offset, length)
