"""Where the chunks of an LZMA2 block end: what of its data is settled before its check is.

A block is LZMA2 chunks one after the other, each of at most 2 MiB of data, whose sizes stand in the
clear. A compressed chunk ends with its range coder back at zero and all of its bytes used, or
liblzma calls it corrupt. So once data of the next chunk comes out, the chunk before it has passed a
test that damage passes once in some four thousand million times. Stored chunks (data that does not
compress) have no such test: of them only the check of the whole block tells.

`ChunkWalk` follows the packed bytes as they come and decodes nothing.

Source: The .xz File Format 1.1.0, sections 3.1 (block header) and 5.3.1 (LZMA2); for the chunks,
which it leaves to liblzma, the description in xz's own lzma2 decoder: control byte 0 ends, 1 and 2
are stored, 0x80 and above are compressed, 0xC0 and above bring new properties.
"""

from collections import deque
from typing import Final

__all__ = ["ChunkWalk"]

_LZMA2: Final = 0x21
_STORED = (0x01, 0x02)
_COMPRESSED = 0x80
_NEW_PROPERTIES = 0xC0
_UNKNOWN: Final = 64 << 20  # the dictionary of xz -9, where the header does not tell


class ChunkWalk:
    """Follow one block's packed bytes, from its header on.

    Attributes:
        dictionary: bytes of memory its decoder needs; a guess until the header was seen.
    """

    def __init__(self) -> None:
        self.dictionary = _UNKNOWN
        self._ends: deque[int] = deque()  # of chunks, in bytes of data, not yet passed
        self._end = 0
        self._settled = 0
        self._coded: int | None = None  # data before the first stored chunk
        self._skip = 0  # packed bytes until the next header
        self._head = bytearray()  # of a header that has come in part
        self._want = 1
        self._in_chunks = False
        self._over = False

    def feed(self, packed: bytes | memoryview) -> None:
        """Take the next packed bytes."""
        at, size = 0, len(packed)
        while at < size and not self._over:
            if self._skip:
                step = min(self._skip, size - at)
                self._skip -= step
                at += step
                continue
            step = min(self._want - len(self._head), size - at)
            self._head += packed[at : at + step]
            at += step
            if len(self._head) == self._want:
                self._header()

    def settled(self, done: int) -> int:
        """Tell how much of the data is settled, when `done` bytes of it have come out."""
        while self._ends and self._ends[0] < done:
            self._settled = self._ends.popleft()
        return self._settled

    def proven(self, done: int) -> int:
        """Tell how much of the data is settled and made of compressed chunks only.

        What follows a stored chunk is left out, tested or not: it may repeat what is in that chunk.
        """
        settled = self.settled(done)
        return settled if self._coded is None else min(settled, self._coded)

    def _header(self) -> None:
        """Read the header that is whole now, or ask for the rest of it."""
        control = self._head[0]
        if not self._in_chunks:
            self._want = (control + 1) * 4
            if len(self._head) == self._want:
                self.dictionary = _dictionary(bytes(self._head))
                self._in_chunks = True
                self._next(skip=0)
        elif control == 0 or (control < _COMPRESSED and control not in _STORED):
            self._over = True  # the end, or damage that the decoder will report
        elif control in _STORED:
            self._want = 3
            if len(self._head) == 3:
                size = int.from_bytes(self._head[1:3], "big") + 1
                if self._coded is None:
                    self._coded = self._end
                self._next(data=size, skip=size)
        else:
            self._want = 5
            if len(self._head) == 5:
                data = ((control & 0x1F) << 16) + int.from_bytes(self._head[1:3], "big") + 1
                packed = int.from_bytes(self._head[3:5], "big") + 1
                self._next(data=data, skip=packed + (control >= _NEW_PROPERTIES))

    def _next(self, *, data: int = 0, skip: int) -> None:
        if data:
            self._end += data
            self._ends.append(self._end)
        self._skip = skip
        self._head.clear()
        self._want = 1


def _dictionary(header: bytes) -> int:
    """Find the size of the dictionary, which the flags of the last filter, LZMA2, hold."""
    at = header.rfind(bytes((_LZMA2, 1)))
    bits = header[at + 2] & 0x3F if at > 0 and at + 2 < len(header) else 40
    if bits > 39:  # 40 is 4 GiB - 1, which is never meant
        return _UNKNOWN
    return (2 | bits & 1) << (bits // 2 + 11)
