"""xz: serve the image inside an xz file, block by block.

The index is read once, at opening; requests are split at block boundaries and answered from the
decoded blocks (`layers/xzblocks`), which all connections of the chain share.

Invariants: no byte is served before the check of its whole block was verified; a bad block is EIO
for the reads that touch it and for nothing else; the image is immutable, so what is known of it
once (a block of zeroes) stays true.
"""

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from nbdserve.blockcache import Claim
from nbdserve.buffers import fill_zeroes
from nbdserve.device import BlockSize, Capability, Device, DeviceInfo, Layer
from nbdserve.errors import NotSupportedError
from nbdserve.extents import DATA, ZERO_HOLE, Extent, coalesce
from nbdserve.formats.xz import XzIndex, XzLayout
from nbdserve.formats.xzblock import DecodedBlock
from nbdserve.formats.xzindex import IndexReader, ReadRange, advance, read_index
from nbdserve.layers.xzblocks import XzBlocks
from nbdserve.params import SIZE, param
from nbdserve.ranges import Piece
from nbdserve.threads import run_cpu

__all__ = ["XzLayer", "XzParams"]

log = logging.getLogger(__name__)

_BLOCK_SIZE = BlockSize(1, 64 << 10, 32 << 20)
_CLAIMS = 8  # blocks one request waits for at once
_EXTENTS = 4096  # blocks looked at for one answer; the client asks again for what is beyond
# Room for 16 MiB blocks of four readers; the daemon with it stays well below 200 MiB.
_CACHE: Final = 80 << 20
_CACHE_MAX: Final = 1 << 30
_LARGE: Final = 64 << 20
_REMEDY = "recompress it: xz -dc FILE | xz -T0 --block-size=16MiB"


@dataclass(frozen=True, slots=True, kw_only=True)
class XzParams:
    """How much memory decoding may take."""

    cache: int | None = param(
        SIZE,
        default=None,
        help="memory for blocks, being decoded or decoded; more lets more cores decode at once"
        " (default: 80M, or as much as four blocks, but at most 1G)",
    )
    max_block: int = param(
        SIZE, default=512 << 20, help="refuse a file with a block larger than this when decoded"
    )
    memlimit: int = param(
        SIZE, default=256 << 20, help="memory one decoder may use (xz -9 needs 65M)"
    )


class XzLayer(Layer):
    """Serve the image inside an xz file, decoding only the blocks that are read.

    The image is read-only; put a cow layer above it to write. To read one byte its whole block is
    fetched and decoded, so the file should be compressed in blocks (`xz -T0 --block-size=16MiB`);
    `nbdctl inspect` tells how it is, and what a read may cost. Streams, stream padding and every
    check and filter of the format are understood. Each block is verified before a byte of it is
    served; a corrupt one is an I/O error for the reads that touch it, and only for those.

        nbdserve --layer cow --layer xz http https://example.org/disk.img.xz
        nbdserve --layer xz:cache=512M file disk.img.xz
    """

    Params = XzParams
    writes_inner = False

    _index: XzIndex
    _layout: XzLayout
    _info: DeviceInfo
    _blocks: XzBlocks
    _budget: int

    def __init__(self, inner: Device, params: XzParams) -> None:
        super().__init__(inner)
        self._params = params

    @property
    def info(self) -> DeviceInfo:
        return self._info

    @property
    def identity(self) -> str | None:
        beneath = self.inner.identity
        return beneath and f"xz of {beneath}"

    @property
    def layout(self) -> XzLayout:
        """What the file is made of, for `nbdctl inspect`."""
        return self._layout

    async def open(self, *, read_only: bool) -> None:
        self._index = await self._read_index()
        self._layout = layout = self._index.layout()
        self._budget = _budget(self._params, layout)
        self._refuse_or_warn()
        can = Capability.CACHE | Capability.EXTENTS
        self._info = DeviceInfo(layout.size, _BLOCK_SIZE, can)
        self._blocks = XzBlocks(
            self.inner, self._index, budget=self._budget, memlimit=self._params.memlimit
        )
        log.info(
            "xz opened size=%d packed=%d streams=%d blocks=%d largest=%d cache=%d",
            layout.size, layout.packed_size, layout.streams, layout.blocks, layout.largest_block,
            self._budget,
        )  # fmt: skip

    async def close(self) -> None:
        await self._blocks.close()

    def read_into_nowait(self, offset: int, view: memoryview) -> bool:
        length = len(view)
        if length == 0:
            return True
        number = self._index.block_at(offset)
        block = self._blocks.get_nowait(number)
        if block is None:
            return False
        start = offset - self._index.starts[number]
        if start + length <= block.size:
            _copy(block, start, view)
            return True
        # some of it may be copied in vain: a read across blocks is rare, and `view` is undefined
        for piece in self._index.pieces(offset, length):
            block = self._blocks.get_nowait(piece.unit)
            if block is None:
                return False
            _copy(block, piece.start, view[piece.at : piece.at + piece.length])
        return True

    async def read_into(self, offset: int, view: memoryview) -> None:
        ahead = _Ahead(self._blocks, self._index.pieces(offset, len(view)))
        try:
            while (piece := ahead.next()) is not None:
                block = await ahead.wait()
                _copy(block, piece.start, view[piece.at : piece.at + piece.length])
        finally:
            ahead.leave()

    async def cache(self, offset: int, length: int) -> None:
        # more than fits would only push out what was just loaded
        length = min(length, self._budget)
        ahead = _Ahead(self._blocks, self._index.pieces(offset, length))
        try:
            while ahead.next() is not None:
                await ahead.wait()
        finally:
            ahead.leave()

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        is_zero = self._blocks.is_zero
        return coalesce(
            Extent(piece.length, ZERO_HOLE if is_zero(piece.unit) else DATA)
            for piece in islice(self._index.pieces(offset, length), _EXTENTS)
        )

    async def _read_index(self) -> XzIndex:
        reader: IndexReader = read_index(self.inner.info.size)
        wanted = advance(reader, None)
        while isinstance(wanted, ReadRange):
            data = await self.inner.read(wanted.offset, wanted.length)
            # an index of a million blocks takes a second to parse
            wanted = await run_cpu(advance, reader, data)
        return wanted

    def _refuse_or_warn(self) -> None:
        layout = self._layout
        if layout.largest_block > self._params.max_block:
            raise NotSupportedError(
                f"xz: its largest block is {layout.largest_block >> 20} MiB, over"
                f" max-block={self._params.max_block >> 20}M; {_REMEDY}"
            )
        if layout.largest_block > _LARGE:
            log.warning(
                "xz blocks are large: reading one byte decodes up to %d MiB, memory used up to"
                " %d MiB; %s",
                layout.largest_block >> 20, max(self._budget, layout.largest_block) >> 20, _REMEDY,
            )  # fmt: skip


class _Ahead:
    """The blocks of one request, in order, with the next few already on their way."""

    __slots__ = ("_blocks", "_pieces", "_waiting")

    def __init__(self, blocks: XzBlocks, pieces: Iterator[Piece]) -> None:
        self._blocks = blocks
        self._pieces = pieces
        self._waiting: deque[tuple[Piece, DecodedBlock | Claim[int, DecodedBlock]]] = deque()

    def next(self) -> Piece | None:
        """Return the next piece, or None after the last."""
        while len(self._waiting) < _CLAIMS:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._waiting.append((piece, self._blocks.demand(piece.unit)))
        return self._waiting[0][0] if self._waiting else None

    async def wait(self) -> DecodedBlock:
        """Return the block of the piece that `next` returned."""
        piece, found = self._waiting[0]
        if isinstance(found, Claim):
            with found:
                found = await found.wait(piece.unit)
        self._waiting.popleft()
        return found

    def leave(self) -> None:
        """Give up what is not read yet."""
        for _, found in self._waiting:
            if isinstance(found, Claim):
                found.leave()


def _copy(block: DecodedBlock, start: int, view: memoryview) -> None:
    if block.data is None:
        fill_zeroes(view)
    else:
        view[:] = block.data[start : start + len(view)]


def _budget(params: XzParams, layout: XzLayout) -> int:
    """Choose the memory for blocks: four readers in different blocks must not chase each other."""
    if params.cache is not None:
        return params.cache
    return max(_CACHE, min(4 * layout.largest_block, _CACHE_MAX))
