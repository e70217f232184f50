"""Decoding one block of an xz file, verified.

liblzma decodes and verifies: the block is given to it inside a stream of its own, made of the
stream header, the block as it is, and an index and footer that state the sizes our index has. So
every filter and every check is its business, and a block of other sizes than promised is refused.

The decoder is fed and drained in steps: the output goes into one buffer made beforehand, zeroes are
not stored, and nothing else grows with the block. Pure: no I/O, no event loop; made to be run in a
thread (lzma releases the GIL).

Invariant: no byte leaves here before the check of its whole block was verified.
"""

import errno
import lzma
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from xz.common import create_xz_header, create_xz_index_footer

from nbdserve.buffers import MAPPED, zeroed_buffer
from nbdserve.errors import CorruptDataError, DeviceError
from nbdserve.formats.xz import XzBlock
from nbdserve.formats.xzindex import check_header

__all__ = ["DecodedBlock", "decode_block"]

GRAIN: Final = 64 << 10
"""Bytes: an aligned run of this many zeroes in a step's output is not stored."""

# Each step takes the GIL a few times; longer steps wait for it less often on a busy loop.
_FEED = 256 << 10
_STEP = 512 << 10
_ZERO_GRAIN = bytes(GRAIN)


@dataclass(frozen=True, slots=True)
class DecodedBlock:
    """The data of one block.

    Attributes:
        data: all of it, or None if every byte is zero.
        size: its length in bytes.
        weight: bytes of memory it occupies.
    """

    data: memoryview | None
    size: int
    weight: int


def decode_block(
    block: XzBlock, packed: memoryview, *, memlimit: int, stop: threading.Event
) -> DecodedBlock | None:
    """Decode and verify one block.

    Args:
        block: what it must be.
        packed: the bytes of its fetch range, stream header in front if it has one.
        memlimit: bytes liblzma may use, its dictionary above all.
        stop: set from another thread to give up at the next step.

    Returns:
        Its data, or None if stopped.

    Raises:
        CorruptDataError: it fails its check, or is not what the index says.
        DeviceError: it needs more memory than there is, or than `memlimit`.
    """
    try:
        if block.lead:
            check_header(bytes(packed[: block.lead]), block.check)
        return _decode(block, packed[block.lead :], memlimit, stop)
    except lzma.LZMAError as exc:
        if "Memory usage limit" in str(exc):
            raise DeviceError(
                f"{_name(block)} needs more than memlimit={memlimit >> 20}M to be decoded;"
                " raise memlimit",
                errno.ENOMEM,
            ) from exc
        raise CorruptDataError(f"{_name(block)} is corrupt ({exc})") from exc
    except CorruptDataError as exc:
        raise CorruptDataError(f"{_name(block)} is corrupt ({exc})") from exc
    except (MemoryError, OSError) as exc:
        raise DeviceError(f"no memory to decode {_name(block)}", errno.ENOMEM) from exc


def _name(block: XzBlock) -> str:
    end = block.offset + block.size
    return (
        f"xz block {block.number} at byte {block.packed_offset} of the file"
        f" (bytes {block.offset} to {end} of the image)"
    )


def _decode(
    block: XzBlock, packed: memoryview, memlimit: int, stop: threading.Event
) -> DecodedBlock | None:
    decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=memlimit)
    feed = _feed(block, packed)
    data: memoryview | None = None
    done = stored = 0
    while done < block.size:
        if stop.is_set():
            return None
        chunk = decoder.decompress(_more(decoder, feed), min(_STEP, block.size - done))
        for begin, end in _runs_of_data(chunk):
            if data is None:
                data = zeroed_buffer(block.size)
            data[done + begin : done + end] = memoryview(chunk)[begin:end]
            stored += end - begin
        done += len(chunk)
    _expect_end(decoder, feed)
    if data is not None and block.size < MAPPED:
        stored = block.size
    return DecodedBlock(data, block.size, stored)


def _feed(block: XzBlock, packed: memoryview) -> Iterator[bytes | memoryview]:
    """Cut a stream with this one block into steps."""
    yield create_xz_header(block.check)
    for at in range(0, len(packed), _FEED):
        yield packed[at : at + _FEED]
    yield create_xz_index_footer(block.check, [(block.unpadded_size, block.size)])


def _expect_end(decoder: lzma.LZMADecompressor, feed: Iterator[bytes | memoryview]) -> None:
    """Feed what is left: block padding, check, index and footer, and no data."""
    while not decoder.eof:
        if decoder.decompress(_more(decoder, feed), 1):
            raise lzma.LZMAError("it holds more data than the index says")
    if decoder.unused_data or next(feed, b""):
        raise lzma.LZMAError("it is shorter than the index says")


def _more(decoder: lzma.LZMADecompressor, feed: Iterator[bytes | memoryview]) -> bytes | memoryview:
    """Return the next input if the decoder has none left."""
    if decoder.eof:
        raise lzma.LZMAError("it holds less data than the index says")
    if not decoder.needs_input:
        return b""
    fresh = next(feed, b"")
    if not fresh:
        raise lzma.LZMAError("it ends early")
    return fresh


def _runs_of_data(chunk: bytes) -> Iterator[tuple[int, int]]:
    """Find the parts of a chunk that are to be stored: all but grains of zeroes."""
    size = len(chunk)
    begin = 0
    for at in range(0, size, GRAIN):
        # one memcmp; its first and last byte are looked at before
        zero = _ZERO_GRAIN if size - at >= GRAIN else _ZERO_GRAIN[: size - at]
        if chunk.startswith(zero, at):
            if at > begin:
                yield begin, at
            begin = at + GRAIN
    if begin < size:
        yield begin, size
