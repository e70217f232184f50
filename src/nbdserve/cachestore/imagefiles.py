"""The two files of one image together: chunks, and the map that claims them.

The order of writes is here: bytes before the record that claims them, the record that gives them
up before they are punched. So whoever is killed between the two leaves at worst room that nobody
claims, which `reclaim` finds. After a power failure either may be there without the other; the
checksums tell.

All methods block and may be called from several threads.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from zlib import crc32

from nbdserve.buffers import is_zero, zeroed_buffer
from nbdserve.cachestore.chunkfile import ChunkFile
from nbdserve.cachestore.chunkmap import GROUP, ChunkState
from nbdserve.cachestore.claims import Claims
from nbdserve.formats.cachemap import Kind, Record
from nbdserve.ranges import pieces

__all__ = ["ImageFiles"]

log = logging.getLogger(__name__)

_COARSE = 600  # seconds by which the use of a group may be known better here than on disk


class ImageFiles:
    """The open files of one image.

    Attributes:
        name: what both are called.
        data: the chunks.
        claims: their map, with its records read.
        size: bytes of the image.
        chunk: bytes in a chunk.
    """

    def __init__(self, name: str, data: ChunkFile, claims: Claims) -> None:
        self.name = name
        self.data = data
        self.claims = claims
        self.size = claims.header.size
        self.chunk = claims.header.chunk

    def read(self, parts: Sequence[tuple[int, memoryview]]) -> None:
        """Fill buffers, each from its offset; raises OSError if that fails."""
        for offset, part in parts:
            self.data.read(offset, part)

    def read_verified(self, numbers: Iterable[int]) -> dict[int, memoryview]:
        """Read whole chunks that are claimed; those that do not match are left out."""
        found = {}
        for number in numbers:
            start = number * self.chunk
            chunk = zeroed_buffer(min(self.chunk, self.size - start))
            if self.claims.kinds[number] != Kind.ZERO:
                try:
                    self.data.read(start, chunk)
                except OSError as exc:
                    log.debug("cached chunk cannot be read chunk=%d: %s", number, exc)
                    continue
                if crc32(chunk) != self.claims.checksum(number):
                    continue
            found[number] = chunk
        return found

    def write(self, first: int, chunks: memoryview) -> list[ChunkState]:
        """Write whole neighbouring chunks and claim them; return the state of each.

        Raises:
            OSError: it failed; nothing is claimed.
        """
        records: list[Record] = []
        states, begin, base = [], 0, first * self.chunk
        for number, _, length, at in pieces(base, len(chunks), self.chunk):
            part = chunks[at : at + length]
            if is_zero(part):
                self.data.write(base + begin, chunks[begin:at])
                begin = at + length
                records.append(self.claims.zero_record(number))
                states.append(ChunkState.ZERO)
            else:
                records.append(Record(Kind.DATA, number, crc32(part)))
                states.append(ChunkState.DATA)
        self.data.write(base + begin, chunks[begin:])
        self.claims.append(records)
        return states

    def catch_up(self) -> tuple[bool, set[int]]:
        """See what another process has added: whether we may add now, which chunks changed."""
        # the lock before the records: those of the one who held it are complete then
        locked = self.claims.take_lock()
        return locked, self.claims.catch_up()

    def claim_zeroes(self, numbers: Sequence[int]) -> None:
        """Note that chunks are zero; they must be holes."""
        self._append(map(self.claims.zero_record, numbers))

    def forget(self, numbers: Sequence[int]) -> None:
        """Give up chunks."""
        self._append(Record(Kind.GONE, number, 0) for number in numbers)

    def _append(self, records: Iterable[Record]) -> None:
        """Append records that no byte depends on.

        What the map still claims does not match its checksum, and what it does not know is read.
        """
        try:
            self.claims.append(records)
        except OSError as exc:
            log.debug("cache map cannot be written name=%s: %s", self.name, exc)

    def drop(self, numbers: Sequence[int], groups: Iterable[int]) -> None:
        """Give up chunks, and the room of their groups; only where the files are ours alone."""
        self.forget(numbers)
        length = GROUP * self.chunk
        self.data.punch([(group * length, length) for group in groups])

    def reclaim(self) -> None:
        """Punch what no record claims, left by a crash; only where the files are ours alone."""
        unclaimed = [
            (number * self.chunk + start, length)
            for offset, allocated in self.data.allocated()
            for number, start, length, _ in pieces(offset, allocated, self.chunk)
            if self.claims.kinds[number] != Kind.DATA
        ]
        if unclaimed:
            log.debug("room that nothing claims is given back name=%s", self.name)
            self.data.punch(unclaimed)

    def save_use(self, used: Mapping[int, int]) -> None:
        """Note when groups were last used, where the map knows too little of it.

        Args:
            used: for each group, in seconds since 1970.
        """
        fresh = {
            group: when
            for group, when in used.items()
            if when > self.claims.used.get(group, 0) + _COARSE
        }
        self.claims.append(Record(Kind.USED, group, when) for group, when in fresh.items())
        if self.claims.is_worth_compacting():
            self.claims.compact({group: self.claims.used[group] for group in used})

    def save(self, used: Mapping[int, int]) -> None:
        """Note what was used, and have the kernel write what it holds of both files.

        Raises:
            OSError: there is no room for the notes, or what was written before is lost.
        """
        try:
            self.save_use(used)
        finally:  # that there is no room for notes does not tell whether anything was lost
            self.data.sync()
            self.claims.sync()

    def close(self) -> None:
        """Close both files, and with them give up the locks."""
        self.claims.close()
        self.data.close()
