"""xz: serve the image inside an xz file, block by block.

The index is read once, at opening; requests are split at block boundaries and answered from the
decoded blocks (`xzengine`), which all connections of the chain share.

Invariants: no byte of a block is served before LZMA2's own test of it, and of one up to `early`
none that has no such test before the check of the whole block was verified; a bad block is EIO for
the reads that touch it and for nothing else; the image is immutable, so what is known of it once (a
block of zeroes) stays true.
"""

import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from nbdserve.device import BlockSize, Capability, Device, DeviceInfo, FileRange, Layer
from nbdserve.errors import NotSupportedError
from nbdserve.extents import Extent, coalesce
from nbdserve.formats.xz import XzIndex, XzLayout
from nbdserve.params import PATH, SIZE, choice, param
from nbdserve.ranges import Piece
from nbdserve.xzengine.blocks import Need, XzBlocks, leave
from nbdserve.xzengine.indexing import index_of
from nbdserve.xzengine.spill import Spill

__all__ = ["XzLayer", "XzParams"]

log = logging.getLogger(__name__)

_BLOCK_SIZE = BlockSize(1, 64 << 10, 32 << 20)
_CLAIMS = 8  # blocks one request waits for at once
_EXTENTS = 1024  # blocks looked at for one answer; the client asks again for what is beyond
# Room for 16 MiB blocks of four readers; the daemon with it stays well below 200 MiB.
_CACHE: Final = 80 << 20
_CACHE_MAX: Final = 1 << 30
_LARGE: Final = 64 << 20
_MAX_BLOCK: Final = 512 << 20  # of a block that has to be decoded in memory
_REMEDY = "recompress it: nbdctl pack FILE NEW.xz --block-size 16M"


@dataclass(frozen=True, slots=True, kw_only=True)
class XzParams:
    """How much memory and disk decoding may take, and when a block is served."""

    cache: int | None = param(
        SIZE,
        default=None,
        help="memory for blocks, being decoded or decoded, and a tenth of it more for packed ones"
        " fetched ahead; more lets more cores decode at once (default: 80M, or as much as four"
        " blocks of up to `early`, but at most 1G)",
    )
    spill: int | None = param(
        SIZE,
        default=None,
        help="disk for decoded blocks that memory has no room for, in an unlinked temporary file;"
        " 0 for none (default: as the file system has room)",
    )
    spill_dir: Path | None = param(
        PATH, default=None, help="folder of that file (default: $TMPDIR, else /var/tmp)"
    )
    early: int = param(
        SIZE,
        default=_LARGE,
        help="answer reads of a block larger than this while it is being decoded, before the check"
        " at its end",
    )
    answer: str = param(
        choice("chunk", "block"),
        default="chunk",
        help="when to answer a read of a block up to `early`: chunk: once LZMA2's own test of all"
        " chunks up to there is passed, which is as strong as a CRC32, or the block's check where"
        " one of them has none; block: always once the check of the whole block is verified",
    )
    max_block: int | None = param(
        SIZE,
        default=None,
        help="refuse a file with a block larger than this when decoded (default: none, but 512M"
        " with spill=0)",
    )
    memlimit: int = param(
        SIZE, default=256 << 20, help="memory one decoder may use (xz -9 needs 65M)"
    )


class XzLayer(Layer):
    """Serve the image inside an xz file, decoding only the blocks that are read.

    The image is read-only; put a cow layer above it to write. To read one byte its block is fetched
    and decoded up to there, so the file should be compressed in blocks (`nbdctl pack FILE NEW.xz
    --block-size 16M`); `nbdctl inspect` tells how it is, and what a read may cost. What is decoded
    once is kept, in memory and past that on disk. Streams, stream padding and every check and
    filter of the format are understood. A block is served as it is decoded, each part once LZMA2's
    own test of it is passed; parts that have none wait for the check of the whole block, unless it
    is larger than `early`. With `answer=block` all of a block up to `early` waits. A corrupt block
    is an I/O error for the reads that touch it, and only for those.

        nbdserve --layer cow --layer xz http https://example.org/disk.img.xz
        nbdserve --layer xz:cache=512M file disk.img.xz
    """

    Params = XzParams
    shareable = True
    writable = False
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

    def status(self) -> Mapping[str, int]:
        return self._blocks.status()

    async def open(self, *, read_only: bool) -> None:
        self._index = await index_of(self.inner)
        self._layout = layout = self._index.layout()
        params = self._params
        self._budget = _budget(params, layout)
        self._refuse_or_warn()
        can = Capability.CACHE | Capability.EXTENTS
        self._info = DeviceInfo(layout.size, _BLOCK_SIZE, can)
        self._blocks = await XzBlocks.open(
            self.inner,
            self._index,
            Spill(self._index.starts, folder=params.spill_dir, limit=params.spill),
            budget=self._budget,
            memlimit=params.memlimit,
            early=params.early,
            parts=params.answer == "chunk",
        )
        log.info(
            "xz opened size=%d packed=%d streams=%d blocks=%d largest=%d cache=%d",
            layout.size, layout.packed_size, layout.streams, layout.blocks, layout.largest_block,
            self._budget,
        )  # fmt: skip

    async def close(self) -> None:
        log.info("xz closed %s", " ".join(f"{k}={v}" for k, v in self.status().items()))
        await self._blocks.close()

    def read_into_nowait(self, offset: int, view: memoryview) -> bool:
        length = len(view)
        if length == 0:
            return True
        number = self._index.block_at(offset)
        start = offset - self._index.starts[number]
        if offset + length <= self._index.starts[number + 1]:
            return self._blocks.fill_nowait(Piece(number, start, length, 0), view)
        # some of it may be copied in vain: a read across blocks is rare, and `view` is undefined
        return all(
            self._blocks.fill_nowait(piece, view[piece.at : piece.at + piece.length])
            for piece in self._index.pieces(offset, length)
        )

    async def read_into(self, offset: int, view: memoryview) -> None:
        ahead = _Ahead(self._blocks, self._index.pieces(offset, len(view)))
        try:
            while (piece := ahead.next()) is not None:
                await ahead.fill(view[piece.at : piece.at + piece.length])
        finally:
            ahead.leave()

    def file_range(self, offset: int, length: int) -> FileRange | None:
        number = self._index.block_at(offset)
        if length == 0 or offset + length > self._index.starts[number + 1]:
            return None
        return self._blocks.file_range(
            Piece(number, offset - self._index.starts[number], length, 0)
        )

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
        pieces = list(islice(self._index.pieces(offset, length), _EXTENTS))
        # a client that skips holes asks here first
        await self._blocks.look_at(piece.unit for piece in pieces)
        return coalesce(extent for piece in pieces for extent in self._blocks.extents(piece))

    def _refuse_or_warn(self) -> None:
        layout, params = self._layout, self._params
        most = params.max_block
        if most is None and params.spill == 0:
            most = _MAX_BLOCK
        if most is not None and layout.largest_block > most:
            raise NotSupportedError(
                f"xz: its largest block is {layout.largest_block >> 20} MiB, over"
                f" max-block={most >> 20}M; {_REMEDY}"
            )
        if layout.largest_block > _LARGE:
            log.warning(
                "xz blocks are large: reading one byte decodes up to %d MiB; %s",
                layout.largest_block >> 20, _REMEDY,
            )  # fmt: skip


class _Ahead:
    """The blocks of one request, in order, with the next few already on their way."""

    __slots__ = ("_blocks", "_pieces", "_waiting")

    def __init__(self, blocks: XzBlocks, pieces: Iterator[Piece]) -> None:
        self._blocks = blocks
        self._pieces = pieces
        self._waiting: deque[tuple[Piece, Need]] = deque()

    def next(self) -> Piece | None:
        """Return the next piece, or None after the last."""
        while len(self._waiting) < _CLAIMS:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._waiting.append((piece, self._blocks.claim(piece)))
        return self._waiting[0][0] if self._waiting else None

    async def fill(self, view: memoryview) -> None:
        """Fill `view` with the piece that `next` returned, when it is there."""
        piece, need = self._waiting[0]
        await self._blocks.fill(piece, view, need)
        self._pass()

    async def wait(self) -> None:
        """Wait for the piece that `next` returned."""
        piece, need = self._waiting[0]
        await self._blocks.arrival(piece, need)
        self._pass()

    def leave(self) -> None:
        """Give up what is not read yet."""
        while self._waiting:
            self._pass()

    def _pass(self) -> None:
        _, need = self._waiting.popleft()
        leave(need)


def _budget(params: XzParams, layout: XzLayout) -> int:
    """Choose the memory for blocks: four readers in different blocks must not chase each other."""
    if params.cache is not None:
        return params.cache
    largest = layout.largest_block
    if params.spill != 0:
        largest = min(largest, params.early)  # a longer one is decoded to disk
    return max(_CACHE, min(4 * largest, _CACHE_MAX))
