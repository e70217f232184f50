"""Decoding one block of an xz file, step by step, verified.

liblzma decodes and verifies: the block is given to it inside a stream of its own, made of the
stream header, the block as it is, and an index and footer that state the sizes our index has. So
every filter and every check is its business, and a block of other sizes than promised is refused.

The decoder takes the packed bytes as they come and gives data as far as they go, so that decoding
goes on while the rest is still on its way; it may be left for any time and taken up again. Pure: no
I/O, no event loop; made to be run in threads, one at a time (lzma releases the GIL).

Invariant: `verified` is False until the check of the whole block was; what comes out before is only
as good as `settled` says.
"""

import errno
import lzma
from collections.abc import Iterator
from typing import Final

from xz.common import create_xz_header, create_xz_index_footer

from nbdserve.errors import CorruptDataError, DeviceError
from nbdserve.formats.lzma2 import ChunkWalk
from nbdserve.formats.xz import XzBlock
from nbdserve.formats.xzindex import check_header

__all__ = ["STEP", "BlockDecoder"]

STEP: Final = 512 << 10
"""Bytes: the most data that comes out in one piece; each takes the GIL a few times."""


class BlockDecoder:
    """Decode and verify one block.

    Args:
        block: what it must be.
        memlimit: bytes liblzma may use, its dictionary above all.
    """

    def __init__(self, block: XzBlock, *, memlimit: int) -> None:
        self.block = block
        self._memlimit = memlimit
        self._lzma = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=memlimit)
        self._walk = ChunkWalk()
        self._lead: bytes | None = b""  # stream header that has come; None once it is dealt with
        self.received = 0
        """Packed bytes taken so far, of the block's `fetch_length`."""
        self.done = 0
        """Bytes of data that have come out so far."""
        self.verified = False
        """Whether all of it has come out and has passed its check."""

    @property
    def settled(self) -> int:
        """Bytes of data, from the start, that have passed a test of their own, or are verified."""
        return self.done if self.verified else self._walk.settled(self.done)

    @property
    def proven(self) -> int:
        """Bytes of data, from the start, that are as good as a CRC32; see `formats.lzma2`."""
        return self.done if self.verified else self._walk.proven(self.done)

    @property
    def dictionary(self) -> int:
        """Bytes of memory that the decoder takes besides what it is given, about."""
        return self._walk.dictionary

    def feed(self, packed: bytes | memoryview) -> Iterator[bytes]:
        """Take the next packed bytes of the fetch range; yield the data they make, in order.

        To be run to its end, unless the decoder is given up.

        Raises:
            CorruptDataError: the block fails its check, or is not what the index says.
            DeviceError: it needs more memory than there is, or than `memlimit`.
        """
        try:
            yield from self._feed(packed)
        except lzma.LZMAError as exc:
            if "Memory usage limit" in str(exc):
                raise DeviceError(
                    f"{_name(self.block)} needs more than memlimit={self._memlimit >> 20}M to be"
                    " decoded; raise memlimit",
                    errno.ENOMEM,
                ) from exc
            raise CorruptDataError(f"{_name(self.block)} is corrupt ({exc})") from exc
        except CorruptDataError as exc:
            raise CorruptDataError(f"{_name(self.block)} is corrupt ({exc})") from exc
        except MemoryError as exc:
            raise DeviceError(f"no memory to decode {_name(self.block)}", errno.ENOMEM) from exc

    def _feed(self, packed: bytes | memoryview) -> Iterator[bytes]:
        block = self.block
        self.received += len(packed)
        if self._lead is not None:
            cut = block.lead - len(self._lead)
            self._lead += packed[:cut]
            packed = packed[cut:]
            if len(self._lead) < block.lead:
                return
            if block.lead:
                check_header(self._lead, block.check)
            self._lead = None
            yield from self._decode(create_xz_header(block.check))
        self._walk.feed(packed)
        yield from self._decode(packed)
        if self.received == block.fetch_length:
            self._expect_end()

    def _decode(self, packed: bytes | memoryview) -> Iterator[bytes]:
        if not packed:
            return
        decoder, size = self._lzma, self.block.size
        if decoder.eof:
            raise lzma.LZMAError("it is shorter than the index says")
        while True:
            room = size - self.done
            chunk = decoder.decompress(packed, min(STEP, room) or 1)
            packed = b""
            if chunk:
                if not room:
                    raise lzma.LZMAError("it holds more data than the index says")
                self.done += len(chunk)
                yield chunk
            elif decoder.eof or decoder.needs_input:
                return

    def _expect_end(self) -> None:
        """Give an index and footer that state the sizes, and expect no data but the end."""
        block = self.block
        for _ in self._decode(
            create_xz_index_footer(block.check, [(block.unpadded_size, block.size)])
        ):
            pass
        if not self._lzma.eof or self.done < block.size or self._lzma.unused_data:
            raise lzma.LZMAError("it holds less data than the index says")
        self.verified = True


def _name(block: XzBlock) -> str:
    end = block.offset + block.size
    return (
        f"xz block {block.number} at byte {block.packed_offset} of the file"
        f" (bytes {block.offset} to {end} of the image)"
    )
