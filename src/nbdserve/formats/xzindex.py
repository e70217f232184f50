"""Reading the index of an xz file from its end, sans I/O.

`read_index` is a generator: it yields the ranges of the file it needs and is sent their bytes, so
that it never does I/O and its requests can be counted in a test. It goes the way the format wants:
stream padding, stream footer, index, then the same again for the stream before. One read of the
tail covers nearly every file. The stream header in front of a stream's first block is not read here
but fetched and checked with that block, which costs no request.

Invariant: nothing is believed beyond what the file's size and the limits below allow.

Source: The .xz File Format 1.1.0. The parsers of footer, header and numbers are python-xz's; its
loop over the index is not used because it refuses empty blocks, which the format allows, and makes
a tuple a block.
"""

import binascii
from array import array
from collections.abc import Generator
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Final, NamedTuple, NoReturn

from xz.common import XZError, decode_mbi, parse_xz_footer, parse_xz_header

from nbdserve.errors import CorruptDataError, NotSupportedError
from nbdserve.formats.magic import guess
from nbdserve.formats.xz import HEADER_SIZE, Check, XzIndex
from nbdserve.ranges import align_up

__all__ = [
    "TAIL",
    "IndexReader",
    "ReadRange",
    "advance",
    "check_header",
    "parse_records",
    "read_index",
]

TAIL: Final = 12 << 10
"""Bytes of the first read: the index of some 1,500 blocks. It is as much as a server sends at once
on a fresh connection, headers included (ten segments, RFC 6928): more would cost a round trip."""

_STEP = 4 << 10  # for each further stream: its index is rarely longer
_PADDING_STEP = 1 << 20
_MAX_PADDING = 64 << 20  # more zeroes than this are a download that never finished
_MAX_INDEX = 64 << 20
_MAX_BLOCKS = 4 << 20  # 24 bytes each in memory
_MAX_STREAMS = 1 << 16
_MAX_SIZE = (1 << 63) - 1
_MIN_UNPADDED = 5  # format, section 4.3
_MBI_BYTES = 9  # format, section 1.2
_HEAD = 512  # enough to tell what a file is that is not xz


class ReadRange(NamedTuple):
    """Bytes of the file that the parser wants next."""

    offset: int
    length: int


IndexReader = Generator[ReadRange, bytes, XzIndex]


@dataclass(frozen=True, slots=True)
class _Stream:
    start: int
    check: Check
    unpadded: "array[int]"
    sizes: "array[int]"


def read_index(packed_size: int) -> IndexReader:
    """Find the blocks of an xz file of `packed_size` bytes.

    Yields:
        ranges of the file; send exactly their bytes.

    Returns:
        The index of the whole file.

    Raises:
        CorruptDataError: it is no xz file, or damaged, or cut off.
        NotSupportedError: it uses a check that cannot be verified, or exceeds a limit.
    """
    window = _Window(packed_size)
    streams: list[_Stream] = []
    padding = blocks = 0
    end = packed_size
    while end > 0 or not streams:
        skipped = yield from _skip_padding(window, end, step=_STEP if streams else TAIL)
        padding += skipped
        stream = yield from _read_stream(window, end - skipped, last=not streams)
        streams.append(stream)
        blocks += len(stream.unpadded)
        if len(streams) > _MAX_STREAMS or blocks > _MAX_BLOCKS:
            raise NotSupportedError(
                f"xz: more than {_MAX_STREAMS} streams or {_MAX_BLOCKS} blocks;"
                " recompress it with xz --block-size=16MiB"
            )
        end = stream.start
    return _join(packed_size, padding, streams[::-1])


def advance(reader: IndexReader, data: bytes | None) -> ReadRange | XzIndex:
    """Take one step of `read_index`: send the bytes it asked for (None at first).

    Returns:
        What it wants next, or the index when it is done.
    """
    try:
        return next(reader) if data is None else reader.send(data)
    except StopIteration as done:
        index: XzIndex = done.value
        return index


def check_header(header: bytes, check: Check) -> None:
    """Compare a stream header with the check its footer told.

    Raises:
        CorruptDataError: it is damaged or tells another check.
    """
    try:
        found = parse_xz_header(header)
    except XZError as exc:
        raise CorruptDataError(f"xz: a stream header is corrupt ({exc})") from exc
    if found != check:
        raise CorruptDataError("xz: a stream's header and footer disagree")


def parse_records(index: bytes) -> "tuple[array[int], array[int]]":
    """Parse an index, from its indicator to its CRC32.

    Returns:
        For each block its unpadded size and its uncompressed size.

    Raises:
        CorruptDataError: it is damaged.
        NotSupportedError: it has too many records.
    """
    if len(index) < 8 or index[0] != 0:
        raise CorruptDataError("xz: the index is corrupt (no index indicator)")
    if binascii.crc32(index[:-4]) != int.from_bytes(index[-4:], "little"):
        raise CorruptDataError("xz: the index is corrupt (CRC32); fetch the file again")
    numbers = iter(index[1:-4])
    unpadded, sizes = array("Q"), array("Q")
    try:
        _, count = decode_mbi(islice(numbers, _MBI_BYTES))
        if count > _MAX_BLOCKS:
            raise NotSupportedError(
                f"xz: {count} blocks in a stream; recompress it with xz --block-size=16MiB"
            )
        for _ in range(count):
            unpadded.append(decode_mbi(islice(numbers, _MBI_BYTES))[1])
            sizes.append(decode_mbi(islice(numbers, _MBI_BYTES))[1])
    except XZError as exc:
        raise CorruptDataError(f"xz: the index is corrupt ({exc})") from exc
    rest = bytes(numbers)
    if len(rest) > 3 or any(rest) or min(unpadded, default=_MIN_UNPADDED) < _MIN_UNPADDED:
        raise CorruptDataError("xz: the index is corrupt (its records do not add up)")
    return unpadded, sizes


class _Window:
    """The bytes of the file that are at hand; moves only towards the beginning."""

    def __init__(self, packed_size: int) -> None:
        self.packed_size = packed_size
        self.start = packed_size
        self.data = b""

    def get(self, offset: int, length: int, step: int) -> Generator[ReadRange, bytes, bytes]:
        """Return a range; what is missing in front is read, at least `step` bytes of it."""
        end = offset + length
        if offset < self.start:
            known = min(self.start, end)
            begin = max(0, min(offset, known - step))
            fresh = yield ReadRange(begin, known - begin)
            if len(fresh) != known - begin:
                raise CorruptDataError("xz: the source returned another length than asked for")
            # nothing behind `end` is needed again
            self.data = fresh + self.data[: end - known] if known < end else fresh
            self.start = begin
        at = offset - self.start
        return self.data[at : at + length]


def _skip_padding(window: _Window, end: int, *, step: int) -> Generator[ReadRange, bytes, int]:
    """Count the zero bytes in front of `end`."""
    at = end
    while at > 0:
        length = min(at - window.start if window.start < at else step, at)
        data = yield from window.get(at - length, length, length)
        kept = len(data.rstrip(b"\0"))
        at -= length - kept
        if kept:
            break
        if end - at > _MAX_PADDING:
            raise CorruptDataError(
                f"xz: {(end - at) >> 20} MiB of zeroes stand before byte {end}; the file looks"
                " like a download that never finished: fetch it again"
            )
        step = min(step * 4, _PADDING_STEP)
    return end - at


def _read_stream(window: _Window, end: int, *, last: bool) -> Generator[ReadRange, bytes, _Stream]:
    """Read the stream that ends at `end`, footer first."""
    check, index_size = yield from _read_footer(window, end, last=last)
    index_at = end - HEADER_SIZE - index_size
    if index_at < HEADER_SIZE:
        raise CorruptDataError(
            f"xz: the index of the stream ending at byte {end} is longer than the file; the"
            " file's beginning is missing: fetch it again"
        )
    if index_size > _MAX_INDEX:
        raise NotSupportedError(
            f"xz: an index of {index_size >> 20} MiB; recompress it with xz --block-size=16MiB"
        )
    unpadded, sizes = parse_records((yield from window.get(index_at, index_size, _STEP)))
    start = index_at - sum(align_up(size, 4) for size in unpadded) - HEADER_SIZE
    if start < 0:
        raise CorruptDataError(
            f"xz: the blocks of the stream ending at byte {end} are longer than the file; the"
            " file's beginning is missing: fetch it again"
        )
    if not unpadded:
        check_header((yield from window.get(start, HEADER_SIZE, _STEP)), check)
    return _Stream(start, check, unpadded, sizes)


def _read_footer(
    window: _Window, end: int, *, last: bool
) -> Generator[ReadRange, bytes, tuple[Check, int]]:
    """Return the check and the size of the index of the stream that ends at `end`."""
    if end < 2 * HEADER_SIZE:
        yield from _refuse(window, end, last=last, why="too short for an xz stream")
    footer = yield from window.get(end - HEADER_SIZE, HEADER_SIZE, _STEP)
    try:
        flags, index_size = parse_xz_footer(footer)
    except XZError as exc:
        why = "no footer magic" if str(exc) == "footer magic" else str(exc)
        yield from _refuse(window, end, last=last and why == "no footer magic", why=why)
    try:
        return Check(flags), index_size
    except ValueError:
        raise NotSupportedError(
            f"xz: the check type {flags} is unknown, so nothing could be verified;"
            " recompress it with xz --check=crc64"
        ) from None


def _refuse(
    window: _Window, end: int, *, last: bool, why: str
) -> Generator[ReadRange, bytes, NoReturn]:
    """Say what is wrong at `end`; at the end of the file, guess what the file is instead."""
    if not last:
        raise CorruptDataError(
            f"xz: no valid stream ends at byte {end} ({why}); the file is corrupt: fetch it again"
        )
    head = yield from window.get(0, min(_HEAD, window.packed_size), 0)
    raise CorruptDataError(f"xz: not a whole xz file ({why} at byte {end}); {guess(head)}")


def _join(packed_size: int, padding: int, streams: list[_Stream]) -> XzIndex:
    """Put the streams, in the order of the file, into one index."""
    starts, packed_at, unpadded = array("Q", [0]), array("Q"), array("Q")
    stream_first = array("Q")
    for stream in streams:
        stream_first.append(len(unpadded))
        size = starts[-1] + sum(stream.sizes)
        if size > _MAX_SIZE:
            raise CorruptDataError("xz: the sizes in the index exceed 8 EiB; it is corrupt")
        starts.extend(islice(accumulate(stream.sizes, initial=starts[-1]), 1, None))
        begins = accumulate(
            (align_up(length, 4) for length in stream.unpadded), initial=stream.start + HEADER_SIZE
        )
        packed_at.extend(islice(begins, len(stream.unpadded)))
        unpadded.extend(stream.unpadded)
    checks = bytes(stream.check for stream in streams)
    return XzIndex(packed_size, padding, starts, packed_at, unpadded, stream_first, checks)
