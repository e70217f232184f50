"""The overlay files of persistent `cow` layers, as files: which there are, whose, and their end.

Invariants: only what begins with an overlay's header is listed or deleted, never through a symbolic
link, and never what any export or process has open: the lock that an open overlay holds is taken
for the deletion. What looks at files or deletes them blocks.
"""

import errno
import fcntl
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nbdserve.chainplan import resolve
from nbdserve.errors import CorruptDataError, DeviceError
from nbdserve.formats.overlay import BLOCK, parse_header
from nbdserve.server.exports import Slot
from nbdserve.spec import ExportSpec

__all__ = ["FoundOverlay", "OverlayUsers", "delete_overlay", "list_overlays", "overlay_paths"]

_OPEN: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO must not hold us up


@dataclass(frozen=True, slots=True)
class FoundOverlay:
    """An overlay file.

    Attributes:
        path: the file.
        size: bytes of the device it makes.
        allocated: bytes it takes on the disk.
        mtime: when it was last written, in seconds since the epoch.
    """

    path: Path
    size: int
    allocated: int
    mtime: float


def overlay_paths(spec: ExportSpec) -> list[Path]:
    """List the overlay files that an export's own layers name, whether they exist or not."""
    return [path for _, _, cls, params in resolve(spec) for path in cls.keeps(params)]


class OverlayUsers:
    """Which export, open or not, names an overlay, by whatever path.

    Args:
        slots: the exports that are asked about.
    """

    def __init__(self, slots: Iterable[Slot]) -> None:
        self._names = {
            os.path.realpath(path): slot.spec.name
            for slot in slots
            for path in overlay_paths(slot.spec)
        }

    def of(self, path: Path) -> str | None:
        """Return the name of the export that names this file."""
        return self._names.get(os.path.realpath(path))


def list_overlays(folder: Path) -> list[FoundOverlay]:
    """List the overlays right in a folder, by name.

    Raises:
        DeviceError: it cannot be read.
    """
    try:
        paths = sorted(folder.iterdir())
    except OSError as exc:
        raise DeviceError(f"{folder}: {exc.strerror}; check --overlay-dir", exc.errno) from exc
    return [found for path in paths if (found := _look(path)) is not None]


def delete_overlay(path: Path) -> None:
    """Delete an overlay that nobody has open; its space is given back when this returns.

    Raises:
        FileNotFoundError: there is no such file.
        DeviceError: it is no overlay, in use, or cannot be deleted.
    """
    try:
        fd = os.open(path, os.O_RDONLY | _OPEN)
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise _cannot(path, exc) from exc
    try:
        parse_header(os.pread(fd, BLOCK, 0))
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _unlink(path, fd)
        _sync(path.parent)
    except CorruptDataError as exc:
        raise DeviceError(f"{path}: {exc}; it is left alone", errno.EINVAL) from exc
    except DeviceError:
        raise
    except BlockingIOError as exc:
        raise DeviceError(f"{path}: is in use; end its export first", errno.EBUSY) from exc
    except OSError as exc:
        raise _cannot(path, exc) from exc
    finally:
        os.close(fd)


def _unlink(path: Path, fd: int) -> None:
    """Delete the file that is open, if it still has this name: another may have come meanwhile."""
    if not os.path.samestat(os.fstat(fd), path.lstat()):
        raise DeviceError(f"{path}: was replaced just now; it is left alone", errno.EBUSY)
    path.unlink()


def _look(path: Path) -> FoundOverlay | None:
    """Look at a file; None if it is no overlay, or gone, or not for us to read."""
    try:
        fd = os.open(path, os.O_RDONLY | _OPEN)
    except OSError:
        return None
    try:
        header = parse_header(os.pread(fd, BLOCK, 0))
        found = os.fstat(fd)
    except OSError:  # CorruptDataError is one
        return None
    finally:
        os.close(fd)
    return FoundOverlay(path, header.size, found.st_blocks * 512, found.st_mtime)


def _cannot(path: Path, exc: OSError) -> DeviceError:
    what = "is a symbolic link" if exc.errno == errno.ELOOP else exc.strerror
    return DeviceError(f"{path}: cannot be deleted: {what}; it is left alone", exc.errno)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
