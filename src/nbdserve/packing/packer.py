"""Packing an image: read in order, compressed on all cores, written in order.

One reader, `threads` compressors, one writer. The memory is bounded: at most twice as many blocks
as threads are on their way, and each compressor has its dictionary. Blocks of zeroes, which most of
an image may be, are compressed once for each size (there are two at most, the usual and the last).

Invariant: when `pack` returns or raises, no thread of it runs any more.
"""

import asyncio
import functools
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from nbdserve.buffers import zeroed_buffer
from nbdserve.formats.xzpack import (
    HOLE,
    BlockRecord,
    PackedBlock,
    Packing,
    pack_block,
    stream_end,
    stream_start,
)
from nbdserve.packing.outputfile import OutputFile
from nbdserve.packing.progress import Progress
from nbdserve.packing.reading import ImageReader
from nbdserve.unbroken import run_unbroken

__all__ = ["Packed", "pack"]

T = TypeVar("T")

_LOOK: Final = 64 << 10  # compared at once: the first that is not zero ends the search
_ZEROES = bytes(_LOOK)


@dataclass(frozen=True, slots=True)
class Packed:
    """What came of it; sizes in bytes.

    Attributes:
        size: length of the image.
        packed_size: length of the file.
        blocks: blocks in it.
        zero_blocks: those of zeroes.
    """

    size: int
    packed_size: int
    blocks: int
    zero_blocks: int


async def pack(
    reader: ImageReader, output: OutputFile, packing: Packing, *, threads: int, progress: Progress
) -> Packed:
    """Write an image as one xz stream; the caller commits the output.

    Args:
        reader: the image.
        output: where it goes.
        packing: how blocks are made.
        threads: how many are made at once.
        progress: is told the bytes that are done, from any thread.

    Raises:
        DeviceError: the image cannot be read, or the output not be written.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="nbdctl-pack") as pool:
        packer = _Packer(packing, pool, progress)
        writer = _Writer(output, packing)
        await writer.begin()
        await _pump(reader, packer, writer, packing.block_size, window=2 * threads)
        return await writer.end(reader.size)


async def _pump(
    reader: ImageReader, packer: "_Packer", writer: "_Writer", block_size: int, *, window: int
) -> None:
    """Move blocks from the reader to the writer, `window` of them at once, in order."""
    under_way: deque[asyncio.Task[PackedBlock]] = deque()
    try:
        for offset in range(0, reader.size, block_size):
            size = min(block_size, reader.size - offset)
            view = zeroed_buffer(size)
            has_data = await reader.read_block(offset, view)
            making = packer.packed(view if has_data else HOLE, size)
            under_way.append(asyncio.create_task(making))
            del view, making  # the task alone keeps the block from now on
            while len(under_way) >= window or (under_way and under_way[0].done()):
                await writer.write(await under_way.popleft())
        while under_way:
            await writer.write(await under_way.popleft())
    finally:
        packer.stop()
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


class _StoppedError(Exception):
    """Ends a thread whose result nobody waits for any more."""


class _Packer:
    """Compresses blocks in threads."""

    def __init__(self, packing: Packing, pool: ThreadPoolExecutor, progress: Progress) -> None:
        self._packing = packing
        self._pool = pool
        self._progress = progress
        self._zero: dict[int, asyncio.Future[PackedBlock]] = {}
        self._stop = threading.Event()

    def stop(self) -> None:
        """Have the threads give up at their next step."""
        self._stop.set()

    async def packed(self, view: memoryview | None, size: int) -> PackedBlock:
        """Compress a block, or give the one that stands for so many zeroes."""
        made = None
        if view is not HOLE:
            made = await self._run(self._pack_unless_zero, view)
        if made is None:
            made = await self._zeroes(size)
            self._progress.advance(size)
        return made

    def _pack_unless_zero(self, view: memoryview) -> PackedBlock | None:
        if _is_zero(view):
            return None
        return self._pack(view, len(view), self._progress.advance)

    def _pack(
        self, view: memoryview | None, size: int, advanced: Callable[[int], None]
    ) -> PackedBlock:
        made = pack_block(view, size, self._packing, stop=self._stop, advanced=advanced)
        if made is None:
            raise _StoppedError
        return made

    def _zeroes(self, size: int) -> asyncio.Future[PackedBlock]:
        if size not in self._zero:
            self._zero[size] = self._run(self._pack, HOLE, size, lambda _: None)
        return self._zero[size]

    def _run(self, call: Callable[..., T], *args: object) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(
            self._pool, functools.partial(call, *args)
        )


class _Writer:
    """Writes blocks one after the other, and the stream around them."""

    def __init__(self, output: OutputFile, packing: Packing) -> None:
        self._output = output
        self._packing = packing
        self._records: list[BlockRecord] = []
        self._zero = 0
        self._written = 0

    async def begin(self) -> None:
        """Write the stream's header."""
        await self._put(stream_start(self._packing))

    async def write(self, block: PackedBlock) -> None:
        """Write the next block."""
        await self._put(*block.parts)
        self._records.append(block.record)
        self._zero += block.zero

    async def end(self, size: int) -> Packed:
        """Write index and footer."""
        await self._put(stream_end(self._packing, self._records))
        return Packed(size, self._written, len(self._records), self._zero)

    async def _put(self, *parts: bytes) -> None:
        await run_unbroken(self._output.write, parts)
        self._written += sum(map(len, parts))


def _is_zero(view: memoryview) -> bool:
    for at in range(0, len(view), _LOOK):
        piece = bytes(view[at : at + _LOOK])
        if not _ZEROES.startswith(piece):
            return False
    return True
