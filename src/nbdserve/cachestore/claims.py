"""A map file: what a cache file claims to hold, kept by appending, read again by whoever opens it.

One process at a time may append to it: the one that holds the lock (flock) on it. The others read
what it appends. Nothing is synchronised; `nbdserve.formats.cachemap` says why that is safe. When
most records have been overtaken by later ones, the file is written anew beside the old one and
takes its name; who has the old one open notices by its inode.

All methods block and may be called from several threads.
"""

import fcntl
import mmap
import os
import re
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from zlib import crc32

from nbdserve.cachestore.chunkmap import GROUP
from nbdserve.errors import CorruptDataError
from nbdserve.formats.cachemap import (
    BLOCK,
    RECORD,
    CacheHeader,
    Kind,
    Record,
    encode_cache_header,
    encode_records,
    identity_digest,
    parse_cache_header,
    parse_records,
)
from nbdserve.ranges import align_down

__all__ = ["Claims"]

_READ = 1 << 20  # bytes of records read at once, a multiple of their length
_CLAIMED = re.compile(rb"[^\0]")
_SLACK = 4096  # records that may be overtaken before it is worth the while to write anew


class Claims:
    """An open map file.

    Attributes:
        header: what the file was made for.
        kinds: for each chunk the latest `Kind` of record of it: GONE, DATA or ZERO.
        used: for each group of which it is known, when it was last used: seconds since 1970.
        locked: whether this process holds the lock, and may append.
    """

    def __init__(self, path: Path, fd: int, header: CacheHeader) -> None:
        count = max(-(-header.size // header.chunk), 1)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANON
        self.header = header
        self.kinds = mmap.mmap(-1, count, flags=flags)
        self.used: dict[int, int] = {}
        self.locked = False
        self._path = path
        self._fd = fd
        self._checksums = memoryview(mmap.mmap(-1, 4 * count, flags=flags)).cast("I")
        self._count = -(-header.size // header.chunk)
        self._zero = {length: crc32(bytes(length)) for length in self._lengths()}
        self._end = BLOCK
        self._records = 0
        self._lock = threading.Lock()

    @classmethod
    def create(cls, path: Path, identity: str, size: int, chunk: int) -> "Claims":
        """Make an empty map, locked; it replaces what has that name.

        Raises:
            OSError: it cannot be made.
        """
        salt = secrets.randbits(32)
        header = CacheHeader(chunk, size, identity_digest(identity), salt, identity)
        fd = _write_new(path, header, b"")
        made = cls(path, fd, header)
        made.locked = True
        return made

    @classmethod
    def open(cls, path: Path) -> "Claims":
        """Open a map, without reading its records.

        Raises:
            FileNotFoundError: there is none.
            CorruptDataError: its header is damaged.
            NotSupportedError: another version made it.
            OSError: it cannot be opened.
        """
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            return cls(path, fd, parse_cache_header(os.pread(fd, BLOCK, 0)))
        except BaseException:
            os.close(fd)
            raise

    def close(self) -> None:
        """Close the file, and with it give up the lock."""
        os.close(self._fd)

    def sync(self) -> None:
        """Make the records durable; for speed after a power failure, not for safety."""
        os.fdatasync(self._fd)

    def take_lock(self) -> bool:
        """Become the one that may append, if nobody else is; then `catch_up`."""
        with self._lock:
            if not self.locked:
                try:
                    fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    return False
                self.locked = not self._is_replaced()
                if not self.locked:
                    fcntl.flock(self._fd, fcntl.LOCK_UN)
            return self.locked

    def has_news(self) -> bool:
        """Tell whether another process has appended or written anew; does not block."""
        found = os.fstat(self._fd)
        return found.st_size > self._end or found.st_nlink == 0

    def catch_up(self) -> set[int]:
        """Read what was appended since the last time; return the chunks it speaks of.

        Raises:
            CorruptDataError: the file was replaced by one that is of no use.
            OSError: it cannot be read.
        """
        with self._lock:
            changed: set[int] = set()
            if not self.locked and self._is_replaced():
                changed.update(self._claimed())
                self._reopen()
            while data := os.pread(self._fd, _READ, self._end):
                whole = align_down(len(data), RECORD)
                for record in parse_records(data, self.header.salt):
                    self._apply(record, changed)
                self._records += whole // RECORD
                self._end += whole
                if whole < _READ:
                    break
            return changed

    def append(self, records: Iterable[Record]) -> None:
        """Append records; only the holder of the lock may.

        Raises:
            OSError: they, or some of them, could not be written; none is counted.
        """
        records = list(records)
        data = encode_records(records, self.header.salt)
        with self._lock:
            done = 0
            while done < len(data):
                done += os.pwrite(self._fd, data[done:], self._end + done)
            self._end += len(data)
            self._records += len(records)
            for record in records:
                self._apply(record, set())

    def checksum(self, number: int) -> int:
        """Return the CRC-32 that the bytes of a chunk must have."""
        return self._checksums[number]

    def zero_record(self, number: int) -> Record:
        """Return the record of a chunk of zeroes."""
        return Record(Kind.ZERO, number, self._zero_checksum(number))

    def is_worth_compacting(self) -> bool:
        """Tell whether most of the file could be left out."""
        live = self._count - self.kinds[: self._count].count(Kind.GONE) + len(self.used)
        return self._records > 2 * live + _SLACK

    def compact(self, used: Mapping[int, int]) -> None:
        """Write the file anew with what counts; only the holder of the lock may.

        Raises:
            OSError: it cannot be written; the old file goes on to be used.
        """
        with self._lock:
            self.used = dict(used)
            live = list(self._live())
            fd = _write_new(self._path, self.header, encode_records(live, self.header.salt))
            os.close(self._fd)
            self._fd = fd
            self._records = len(live)
            self._end = BLOCK + len(live) * RECORD

    def _claimed(self) -> Iterator[int]:
        # a walk over each of the 16 million bytes of 1 TiB would take a second
        return (found.start() for found in _CLAIMED.finditer(self.kinds))

    def _live(self) -> Iterator[Record]:
        for number in self._claimed():
            yield Record(Kind(self.kinds[number]), number, self._checksums[number])
        for group, when in self.used.items():
            yield Record(Kind.USED, group, when)

    def _apply(self, record: Record, changed: set[int]) -> None:
        kind, number, value = record
        if kind is Kind.USED:
            if number * GROUP < self._count:
                self.used[number] = value
        elif number < self._count:
            if kind is Kind.ZERO and value != self._zero_checksum(number):
                return
            self.kinds[number] = kind
            self._checksums[number] = value
            changed.add(number)

    def _zero_checksum(self, number: int) -> int:
        last = number == self._count - 1
        return self._zero[self._lengths()[1] if last else self.header.chunk]

    def _lengths(self) -> tuple[int, int]:
        """Return the bytes in a chunk, and in the last one."""
        size, chunk = self.header.size, self.header.chunk
        return chunk, size - align_down(max(size - 1, 0), chunk)

    def _is_replaced(self) -> bool:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return True
        mine = os.fstat(self._fd)
        return (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino)

    def _reopen(self) -> None:
        fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        try:
            header = parse_cache_header(os.pread(fd, BLOCK, 0))
        except BaseException:
            os.close(fd)
            raise
        if header.chunk != self.header.chunk:
            os.close(fd)
            raise CorruptDataError("was replaced by one of other chunks")
        os.close(self._fd)
        self._fd, self.header = fd, header
        self.kinds[:] = bytes(len(self.kinds))
        self.used.clear()
        self._end, self._records = BLOCK, 0


def _write_new(path: Path, header: CacheHeader, records: bytes) -> int:
    """Write a map beside the old one, lock it, give it the name; return its descriptor."""
    draft = path.with_suffix(".new")
    fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        data = encode_cache_header(header) + records
        done = 0
        while done < len(data):
            done += os.pwrite(fd, data[done:], done)
        # a name that came through a power failure shall not lead to a file that did not
        os.fdatasync(fd)
        draft.rename(path)
    except BaseException:
        os.close(fd)
        draft.unlink(missing_ok=True)
        raise
    return fd
