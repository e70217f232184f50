"""Where the bytes to pack come from: a chain of devices, or an xz file read from start to end.

A chain tells its holes, which are then not read. An xz file goes through one decoder from its first
byte to its last, so that the files that need packing most, a single block of any size, take no more
memory than others; the xz layer would have to keep such a block whole.

Invariant: what is read is all of the image and nothing else: the streams of an xz file are found by
its index, not by trying what lies behind the last one, which would end at stream padding.
"""

import lzma
from collections.abc import AsyncGenerator, Iterator
from itertools import pairwise
from typing import Final, Protocol

from nbdserve.device import Device
from nbdserve.errors import CorruptDataError, DeviceError
from nbdserve.extents import State
from nbdserve.formats.xz import HEADER_SIZE, XzIndex
from nbdserve.threads import run_cpu

__all__ = ["DeviceReader", "ImageReader", "XzReader", "is_xz"]

_MAGIC: Final = b"\xfd7zXZ\0"
_READ: Final = 4 << 20  # a round trip to a far mirror for this much is time well spent
_DECODED: Final = 1 << 20
_MEMLIMIT: Final = 1 << 30  # of one decoder; xz -9 needs 65 MiB


class ImageReader(Protocol):
    """Gives an image block by block, in order.

    Attributes:
        size: its length in bytes.
    """

    size: int

    async def read_block(self, offset: int, view: memoryview) -> bool:
        """Fill all of `view`, which holds zeroes, with what follows the block before.

        Returns:
            False if it is known to hold zeroes only; `view` still does then.

        Raises:
            DeviceError: it cannot be read, or is damaged.
        """


class DeviceReader:
    """Reads a device, but for its holes."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.size = device.info.size

    async def read_block(self, offset: int, view: memoryview) -> bool:
        at, read = 0, False
        while at < len(view):
            for extent in await self._device.extents(offset + at, len(view) - at):
                if not extent.state & State.ZERO:
                    await self._read(offset + at, view[at : at + extent.length])
                    read = True
                at += extent.length
        return read

    async def _read(self, offset: int, view: memoryview) -> None:
        for at in range(0, len(view), _READ):
            await self._device.read_into(offset + at, view[at : at + _READ])


class XzReader:
    """Decodes an xz file in order. Make its index with `index_of`, close it with `aclose`.

    Args:
        device: the file.
        index: what is in it.
    """

    def __init__(self, device: Device, index: XzIndex) -> None:
        self._device = device
        self.size = index.size
        self._streams = _streams(index)
        self._decoder: lzma.LZMADecompressor | None = None
        self._pieces: AsyncGenerator[bytes | memoryview, None] | None = None
        self._at = 0

    async def aclose(self) -> None:
        """Fetch no more of the file."""
        if self._pieces is not None:
            await self._pieces.aclose()

    async def read_block(self, offset: int, view: memoryview) -> bool:
        done = 0
        while done < len(view):
            packed = await self._feed()
            if packed is None:
                raise CorruptDataError("xz: it holds less data than its index says; fetch it again")
            done += await self._decode(packed, view[done:])
        if offset + done == self.size:
            await self._finish()
        return True

    async def _finish(self) -> None:
        """Read the last stream to its end: its checks, its index and its footer."""
        with memoryview(bytearray(1)) as beyond:
            while (packed := await self._feed()) is not None:
                if await self._decode(packed, beyond):
                    raise CorruptDataError("xz: it holds more data than its index says")

    async def _feed(self) -> bytes | memoryview | None:
        """Return what the decoder is to have next, perhaps nothing; None behind the last stream."""
        if self._decoder is None or self._decoder.eof:
            await self.aclose()
            following = next(self._streams, None)
            if following is None:
                return None
            self._at, until = following
            self._pieces = self._device.stream(self._at, until - self._at)
            self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMLIMIT)
        if not self._decoder.needs_input:
            return b""
        assert self._pieces is not None
        piece = await anext(self._pieces, b"")
        if not piece:
            raise CorruptDataError(f"xz: the stream ending at byte {self._at} of the file is cut")
        self._at += len(piece)
        return piece

    async def _decode(self, packed: bytes | memoryview, view: memoryview) -> int:
        assert self._decoder is not None
        try:
            data = await run_cpu(self._decoder.decompress, packed, min(len(view), _DECODED))
        except lzma.LZMAError as exc:
            if "Memory usage limit" in str(exc):
                raise DeviceError(f"xz: it needs over {_MEMLIMIT >> 20} MiB to decode") from exc
            raise CorruptDataError(
                f"xz: corrupt before byte {self._at} of the file ({exc}); fetch it again"
            ) from exc
        view[: len(data)] = data
        return len(data)


def _streams(index: XzIndex) -> Iterator[tuple[int, int]]:
    """Give begin and end in the file of each stream that holds blocks; padding may be included."""
    firsts = [*index.stream_first, index.blocks]
    begins = [index.packed_at[a] - HEADER_SIZE for a, b in pairwise(firsts) if a < b]
    yield from pairwise([*begins, index.packed_size])


async def is_xz(device: Device) -> bool:
    """Tell by its first bytes whether a device is an xz file."""
    size = device.info.size
    return size >= len(_MAGIC) and await device.read(0, len(_MAGIC)) == _MAGIC
