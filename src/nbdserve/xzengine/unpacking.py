"""One block from packed bytes to data, in steps a thread takes.

`Unpacking` is plain state: the loop gives it packed bytes, a thread makes a step with them, and the
loop then looks at how far it has come. The data goes to a `Sink`: memory for a block that is served
once it is verified, the spill file for one that is served while it is being decoded.
"""

import abc
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

from nbdserve.buffers import MAPPED, zeroed_buffer
from nbdserve.formats.xz import XzBlock
from nbdserve.formats.xzblock import BlockDecoder
from nbdserve.xzengine.grains import parts
from nbdserve.xzengine.spill import Spill

__all__ = ["MemorySink", "Sink", "SpillSink", "Unpacking"]

_TURN: Final = 4 << 20  # bytes of data made in one step: some 20 ms of a core


class Sink(abc.ABC):
    """Where the data of one block goes."""

    @abc.abstractmethod
    def store(self, at: int, data: memoryview) -> None:
        """Store data that is not zero at `at` bytes from the block's start; runs in a thread."""

    @abc.abstractmethod
    def store_zeroes(self, at: int, zeroes: memoryview) -> None:
        """See to it that zeroes will be read at `at`; runs in a thread."""


class MemorySink(Sink):
    """Memory for a block of `size` bytes; nothing is taken as long as all is zero."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.data: memoryview | None = None
        """All of the block, or None if every byte of it is zero."""
        self._stored = 0

    @property
    def weight(self) -> int:
        """Bytes of memory that are occupied."""
        if self.data is None:
            return 0
        return self._stored if self._size >= MAPPED else self._size

    def store(self, at: int, data: memoryview) -> None:
        if self.data is None:
            self.data = zeroed_buffer(self._size)
        self.data[at : at + len(data)] = data
        self._stored += len(data)

    def store_zeroes(self, at: int, zeroes: memoryview) -> None:
        pass  # the buffer is zeroes


class SpillSink(Sink):
    """The spill file, which holds zeroes where nothing was stored.

    One serves all attempts at a block: what an earlier one left behind, damaged maybe, is
    overwritten, with zeroes too, and takes no more room.

    Args:
        spill: the file, open.
        offset: where the block begins in the image.
    """

    def __init__(self, spill: Spill, offset: int) -> None:
        self._spill = spill
        self._offset = offset
        self._reached = 0

    def store(self, at: int, data: memoryview) -> None:
        end = at + len(data)
        self._spill.reserve(max(0, end - max(at, self._reached)))
        self._spill.write_in(self._offset + at, data)
        self._reached = max(end, self._reached)

    def store_zeroes(self, at: int, zeroes: memoryview) -> None:
        stale = min(len(zeroes), self._reached - at)
        if stale > 0:
            self._spill.write_in(self._offset + at, zeroes[:stale])


class Unpacking:
    """Decode one block into a sink.

    Args:
        block: the block.
        sink: where its data goes.
        memlimit: bytes the decoder may use.
    """

    def __init__(self, block: XzBlock, sink: Sink, *, memlimit: int) -> None:
        self.block = block
        self._sink = sink
        self._decoder = BlockDecoder(block, memlimit=memlimit)
        self._input: deque[bytes | memoryview] = deque()
        self._output: Iterator[bytes] | None = None
        self._zeroes: list[tuple[int, int]] = []

    @property
    def is_hungry(self) -> bool:
        """Whether it needs packed bytes to go on."""
        return not (self._input or self._output)

    @property
    def received(self) -> int:
        """Packed bytes given to it so far, of the block's `fetch_length`."""
        return self._decoder.received + sum(map(len, self._input))

    @property
    def settled(self) -> int:
        """Bytes of data, from the start, that are stored and as good as `formats.lzma2` says."""
        return self._decoder.settled

    @property
    def proven(self) -> int:
        """Likewise, but only what is good without the check at the block's end."""
        return self._decoder.proven

    @property
    def verified(self) -> bool:
        """Whether all of the block is stored and has passed its check."""
        return self._decoder.verified

    @property
    def dictionary(self) -> int:
        """Bytes of memory its decoder occupies, about."""
        return self._decoder.dictionary

    def give(self, packed: Iterable[bytes | memoryview]) -> None:
        """Give it packed bytes; not while a step runs."""
        self._input.extend(packed)

    def step(self) -> None:
        """Decode some of what it was given; to be run in a thread, never two at once.

        Raises:
            CorruptDataError: the block is not what it should be.
            DeviceError: it cannot be decoded or stored for lack of memory or space.
        """
        made = 0
        while made < _TURN and not self.is_hungry:
            if self._output is None:
                self._output = self._decoder.feed(self._input.popleft())
            chunk = next(self._output, None)
            if chunk is None:
                self._output = None
                continue
            made += len(chunk)
            self._store(self._decoder.done - len(chunk), chunk)

    def take_zeroes(self) -> list[tuple[int, int]]:
        """Return the runs of zeroes found since the last call, in bytes of the image."""
        found, self._zeroes = self._zeroes, []
        return found

    def _store(self, at: int, chunk: bytes) -> None:
        offset = self.block.offset + at
        view = memoryview(chunk)
        for begin, end, zero in parts(view, offset):
            if zero:
                self._zeroes.append((offset + begin, offset + end))
                self._sink.store_zeroes(at + begin, view[begin:end])
            else:
                self._sink.store(at + begin, view[begin:end])
