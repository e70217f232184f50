"""A persistent overlay file: its data, and a map that is replaced as a whole or not at all.

The format is `nbdserve.formats.overlay`; here is the order in which it reaches the disk. A commit
writes the changed pages into slots nobody refers to, makes them and all data durable with one
fdatasync, then writes the root that refers to them, then fdatasync again. Wherever power fails,
the root in force describes pages and data that were durable before it was.

After a failed fdatasync the kernel has dropped the dirty pages and would report success next time,
so no later commit succeeds until the file is opened anew.
"""

import errno
import fcntl
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from zlib import crc32

from nbdserve.datafile import DataFile, fallocate
from nbdserve.errors import CorruptDataError, DeviceError
from nbdserve.formats.overlay import (
    BLOCK,
    EMPTY_PAGE_CRC,
    Header,
    Layout,
    Root,
    difference,
    encode_header,
    encode_page,
    encode_root,
    layout_of,
    parse_header,
    parse_page,
    parse_root,
)

__all__ = ["OverlayFile"]

log = logging.getLogger(__name__)

_AFRESH = "name another path=, or remove the file to start afresh"
_RESTORE = "restore it from a backup, or remove it to start afresh"


class OverlayFile(DataFile):
    """An open overlay, locked; make it with `create` or `open`. All methods block.

    One writer: `commit` and `seal` are called one at a time.
    """

    def __init__(self, fd: int, path: Path, header: Header, root: Root) -> None:
        self._layout = layout_of(header.size, header.cluster)
        super().__init__(fd, self._layout.data_start, str(path), user="cow")
        self.header = header
        self._generation = root.generation
        self._slots = bytearray(root.slots)
        self._checksums = list(root.checksums)
        self._lost: OSError | None = None

    @classmethod
    def create(cls, path: Path, header: Header) -> "OverlayFile":
        """Make a new overlay; it gets its name when it is complete.

        Raises:
            DeviceError: it cannot be made, or there is one by now.
        """
        layout = layout_of(header.size, header.cluster)
        root = Root(1, bytes(layout.pages), [EMPTY_PAGE_CRC] * layout.pages)
        fd = -1
        draft = ""
        try:
            fd, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _fill_new(fd, header, layout, encode_root(root, layout))
            os.link(draft, path)
            _sync_folder(path.parent)
        except OSError as exc:
            if fd >= 0:
                os.close(fd)
            raise _cannot_create(path, exc) from exc
        finally:
            if draft:
                Path(draft).unlink()
        return cls(fd, path, header, root)

    @classmethod
    def open(cls, path: Path, *, read_only: bool) -> "OverlayFile":
        """Open an overlay that exists, and lock it: shared if read-only, else exclusively.

        Raises:
            FileNotFoundError: there is none.
            CorruptDataError: it is damaged, or no overlay.
            DeviceError: it is in use, or cannot be opened.
        """
        try:
            fd = os.open(path, os.O_CLOEXEC | (os.O_RDONLY if read_only else os.O_RDWR))
        except FileNotFoundError:
            raise
        except OSError as exc:
            raise DeviceError(
                f"cow: {path}: {exc.strerror}; check its permissions", exc.errno
            ) from exc
        try:
            _take_lock(fd, path, fcntl.LOCK_SH if read_only else fcntl.LOCK_EX)
            header, root = _read_head(fd, path)
            return cls(fd, path, header, root)
        except BaseException:
            os.close(fd)
            raise

    def refuse_other(self, wanted: Header) -> None:
        """Raise DeviceError unless the overlay was made for this base and cluster size."""
        found = difference(self.header, wanted)
        if found is not None:
            raise DeviceError(f"cow: {self._name}: {found}; {_AFRESH}", errno.EINVAL)

    def pages(self) -> Iterator[tuple[int, bytes]]:
        """Read the map: the states of each page in which any cluster is not the base's.

        Raises:
            CorruptDataError: it is damaged.
        """
        for page, checksum in enumerate(self._checksums):
            if checksum == EMPTY_PAGE_CRC:
                continue
            block = os.pread(self._fd, BLOCK, self._layout.page_at(page, self._slots[page]))
            try:
                states = parse_page(block, checksum)
            except CorruptDataError as exc:
                raise CorruptDataError(
                    f"cow: {self._name}: {exc} (page {page}); {_RESTORE}"
                ) from exc
            yield page, states

    def commit(self, pages: Mapping[int, bytes]) -> None:
        """Make all data written so far durable, and then these pages of the map.

        Raises:
            NoSpaceError: the file system is full; the map on disk is the former one.
            DeviceError: the disk failed; no later commit succeeds.
        """
        self._refuse_lost()
        slots, checksums = bytearray(self._slots), list(self._checksums)
        for page, states in pages.items():
            block = encode_page(states)
            slots[page] ^= 1
            checksums[page] = crc32(block)
            self._write_at(self._layout.page_at(page, slots[page]), block)
        self._sync()
        if pages:
            root = Root(self._generation + 1, slots, checksums)
            self._write_root(root, root.generation & 1)
            self._sync()
            self._generation, self._slots, self._checksums = root.generation, slots, checksums

    def seal(self) -> None:
        """Write the root in force to both places, so that damage to either is no loss."""
        self._refuse_lost()
        root = Root(self._generation, self._slots, self._checksums)
        self._write_root(root, (self._generation & 1) ^ 1)
        self._sync()

    def _write_root(self, root: Root, place: int) -> None:
        self._write_at(self._layout.root_at(place), encode_root(root, self._layout))

    def _write_at(self, position: int, block: bytes) -> None:
        self.write(position - self._start, [block])

    def _sync(self) -> None:
        try:
            os.fdatasync(self._fd)
        except OSError as exc:
            self._lost = exc
            self._refuse_lost()

    def _refuse_lost(self) -> None:
        if self._lost is not None:
            raise DeviceError(
                f"cow: {self._name}: writes were lost ({self._lost.strerror}); "
                "check the disk and reopen the export",
                self._lost.errno,
            )


def _fill_new(fd: int, header: Header, layout: Layout, root: bytes) -> None:
    # the map's place is reserved, so that a flush never fails for want of space for it
    try:
        fallocate(fd, 0, 0, layout.data_start)
    except OSError as exc:
        if exc.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    os.ftruncate(fd, layout.end)
    os.pwrite(fd, encode_header(header) + root + root, 0)
    os.fsync(fd)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _cannot_create(path: Path, exc: OSError) -> DeviceError:
    remedy = {
        errno.ENOENT: "make the folder first",
        errno.EACCES: "check the permissions of its folder",
        errno.EEXIST: "another process just made it; start again",
        errno.EFBIG: "its file system cannot hold so large a file; name another path=",
    }.get(exc.errno or 0, "check its folder, or name another path=")
    return DeviceError(f"cow: {path}: cannot be made: {exc.strerror}; {remedy}", exc.errno)


def _take_lock(fd: int, path: Path, kind: int) -> None:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        raise DeviceError(
            f"cow: {path}: is in use by another export or process; "
            "end that one, or give each its own path=",
            errno.EBUSY,
        ) from exc
    except OSError as exc:
        raise DeviceError(
            f"cow: {path}: cannot be locked: {exc.strerror}; put it on another file system",
            exc.errno,
        ) from exc
    if not os.fstat(fd).st_nlink:  # deleted before it was locked
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


def _read_head(fd: int, path: Path) -> tuple[Header, Root]:
    """Read the header, and the root that counts.

    Raises:
        CorruptDataError: one of them cannot be had.
    """
    try:
        header, roots = _parse_head(fd)
    except CorruptDataError as exc:
        raise CorruptDataError(f"cow: {path}: {exc}; {_RESTORE}") from exc
    root = max(roots, key=lambda root: root.generation)
    if len(roots) < 2:
        log.warning(
            "a write of the overlay's map was cut short; the map before it counts "
            "path=%s generation=%d",
            path,
            root.generation,
        )
    return header, root


def _parse_head(fd: int) -> tuple[Header, list[Root]]:
    header = parse_header(os.pread(fd, BLOCK, 0))
    layout = layout_of(header.size, header.cluster)
    if os.fstat(fd).st_size < layout.end:
        raise CorruptDataError(f"is shorter than the {layout.end} bytes it should have")
    blocks = [os.pread(fd, layout.root_length, layout.root_at(number)) for number in (0, 1)]
    roots = [root for block in blocks if (root := parse_root(block, layout)) is not None]
    if not roots:
        raise CorruptDataError("both roots of its map are damaged")
    return header, roots
