"""Making xz files: one block at a time, and the stream around them. Pure: bytes in, bytes out.

liblzma compresses each block and computes its check, inside a stream of its own; the block is then
taken out, and its header made anew with both sizes in it, as `xz -T` writes them, so that decoders
can work on blocks in parallel. Blocks are therefore made in any order, in as many threads as there
are cores (lzma releases the GIL), and put together by whoever writes them. python-xz's writer is
not used because its blocks are made one after the other; CRC64, the usual check, is the reason not
to use raw LZMA2: Python has no other fast way to compute it.

Source: The .xz File Format 1.1.0, sections 2 to 4.
"""

import binascii
import lzma
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from xz.common import create_xz_header, encode_mbi, parse_xz_footer

from nbdserve.formats.xz import HEADER_SIZE, Check
from nbdserve.formats.xzindex import parse_records
from nbdserve.ranges import align_up

__all__ = ["HOLE", "BlockRecord", "PackedBlock", "Packing", "pack_block", "stream_end",
           "stream_start"]  # fmt: skip

HOLE: Final = None
"""What stands for the data of a block that is known to hold zeroes only."""

# Small enough that Ctrl-C and a progress bar need not wait; large enough to keep the GIL out of it.
_STEP: Final = 1 << 20
_ZEROES = bytes(_STEP)
_HEADER_HAS_SIZES = 0xC0  # section 3.1.2: both sizes present, one filter
_LZMA2 = b"\x21\x01"  # section 5.3.1: filter id, size of its properties
_CHECK_SIZE = {Check.NONE: 0, Check.CRC32: 4, Check.CRC64: 8, Check.SHA256: 32}
# xz(1), the dictionary of each preset
_DICTIONARY = tuple(size << 10 for size in (256, 1024, 2048, 4096, 4096, 8192, 8192, 16384, 32768,
                                            65536))  # fmt: skip
_LEAST_DICTIONARY = 4096


@dataclass(frozen=True, slots=True)
class Packing:
    """How blocks are compressed.

    Attributes:
        block_size: bytes of data in each block but the last.
        preset: 0 (fastest) to 9 (smallest), as xz(1) has them.
        check: the integrity check of each block.
    """

    block_size: int
    preset: int = 6
    check: Check = Check.CRC64

    @property
    def dictionary(self) -> int:
        """Bytes of the dictionary: the preset's, but no more than a block can fill.

        A larger one costs memory at both ends and finds nothing.
        """
        return max(min(_DICTIONARY[self.preset], self.block_size), _LEAST_DICTIONARY)

    @property
    def filters(self) -> list[dict[str, Any]]:
        """The filter chain, as the lzma module takes it."""
        return [
            {"id": lzma.FILTER_LZMA2, "preset": self.preset, "dict_size": self.dictionary},
        ]


class BlockRecord(NamedTuple):
    """What the index says of a block: bytes in the file without padding, bytes of data."""

    unpadded_size: int
    size: int


@dataclass(frozen=True, slots=True)
class PackedBlock:
    """A finished block.

    Attributes:
        parts: its bytes, padding included, to be written one after the other.
        record: its entry in the index.
        zero: it holds nothing but zeroes.
    """

    parts: tuple[bytes, ...]
    record: BlockRecord
    zero: bool


def stream_start(packing: Packing) -> bytes:
    """Make the header of the stream."""
    return create_xz_header(packing.check)


def stream_end(packing: Packing, records: Iterable[BlockRecord]) -> bytes:
    """Make the index and the footer of the stream."""
    written = list(records)
    index = bytearray(b"\0")
    index += encode_mbi(len(written))
    for record in written:
        index += encode_mbi(record.unpadded_size)
        index += encode_mbi(record.size)
    index += bytes(-len(index) % 4)
    index += _crc32(index)
    footer = (len(index) // 4 - 1).to_bytes(4, "little") + bytes((0, packing.check))
    return bytes(index) + _crc32(footer) + footer + b"YZ"


def pack_block(
    data: memoryview | None,
    size: int,
    packing: Packing,
    *,
    stop: threading.Event,
    advanced: Callable[[int], None],
) -> PackedBlock | None:
    """Compress one block; made to be run in a thread.

    Args:
        data: its bytes, or HOLE for zeroes.
        size: how many they are, at least 1.
        packing: how.
        stop: set from another thread to give up at the next step.
        advanced: called with the number of bytes of each step, in this thread.

    Returns:
        The block, or None if stopped.
    """
    encoder = lzma.LZMACompressor(lzma.FORMAT_XZ, check=int(packing.check), filters=packing.filters)
    made = bytearray()
    for at in range(0, size, _STEP):
        if stop.is_set():
            return None
        end = min(at + _STEP, size)
        made += encoder.compress(_ZEROES[: end - at] if data is HOLE else data[at:end])
        advanced(end - at)
    made += encoder.flush()
    return _taken_out(bytes(made), size, packing.check, zero=data is HOLE)


def _taken_out(stream: bytes, size: int, check: Check, *, zero: bool) -> PackedBlock:
    """Take the only block out of a stream and put its sizes into its header."""
    _, index_size = parse_xz_footer(stream[-HEADER_SIZE:])
    (unpadded,), (counted,) = parse_records(stream[-HEADER_SIZE - index_size : -HEADER_SIZE])
    old_header = (stream[HEADER_SIZE] + 1) * 4
    assert stream[HEADER_SIZE + 1] == 0, "liblzma's encoder writes one filter and no sizes"
    assert counted == size
    flags = stream[HEADER_SIZE + 2 : HEADER_SIZE + 5]
    assert flags.startswith(_LZMA2)
    packed = unpadded - old_header - _CHECK_SIZE[check]
    header = _block_header(packed, size, flags)
    body = stream[HEADER_SIZE + old_header : HEADER_SIZE + align_up(unpadded, 4)]
    record = BlockRecord(len(header) + packed + _CHECK_SIZE[check], size)
    return PackedBlock((header, body), record, zero)


def _block_header(packed: int, size: int, filter_flags: bytes) -> bytes:
    fields = bytes((_HEADER_HAS_SIZES,)) + encode_mbi(packed) + encode_mbi(size) + filter_flags
    length = align_up(1 + len(fields) + 4, 4)
    header = bytes((length // 4 - 1,)) + fields
    header += bytes(length - 4 - len(header))
    return header + _crc32(header)


def _crc32(data: bytes | bytearray) -> bytes:
    return binascii.crc32(data).to_bytes(4, "little")
