"""Opening a disk image or block device: rights, kind, size and lock, each with its remedy.

Blocks; the `file` source calls it in a thread. Whatever fails, nothing is left open.
"""

import errno
import fcntl
import logging
import os
import stat
from pathlib import Path
from typing import NamedTuple

from nbdserve.errors import DeviceError
from nbdserve.sources.imagefile import ImageFile
from nbdserve.sources.kernel import block_device_sector, block_device_size

__all__ = ["Opened", "open_image"]

log = logging.getLogger(__name__)

# EPERM: immutable; EROFS: the file system is read-only; ETXTBSY: it is being executed.
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ETXTBSY})
# O_NONBLOCK: opening a fifo must not wait for its writer; files and disks do not know it.
_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK
_REMEDIES = {
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EACCES: "check its permissions and those of its folders",
    errno.EISDIR: "name an image file in it",
    errno.EMFILE: "raise the limit of open files (LimitNOFILE= of the service)",
}


class Opened(NamedTuple):
    """An open image, and what can be done with it.

    Attributes:
        image: the image; whoever asked for it closes it.
        writable: it may be written.
        punches: holes can be punched in it, as far as can be told; False if it is not writable.
    """

    image: ImageFile
    writable: bool
    punches: bool


def open_image(path: Path, *, read_only: bool, lock: bool | None) -> Opened:
    """Open an image for writing if that is wanted and permitted, else for reading.

    Args:
        path: a file or block device.
        read_only: nobody will write.
        lock: whether to lock it against other processes; None: only if it is writable.

    Raises:
        DeviceError: it is missing, not permitted, no disk, or locked by another process.
    """
    fd, writable = _open(path, read_only=read_only)
    try:
        image = _measured(path, fd)
        if writable if lock is None else lock:
            _take_lock(path, fd, exclusive=writable)
        punches = writable and image.can_punch()
    except BaseException:
        os.close(fd)
        raise
    return Opened(image, writable, punches)


def _open(path: Path, *, read_only: bool) -> tuple[int, bool]:
    if not read_only:
        try:
            return os.open(path, _FLAGS | os.O_RDWR), True
        except OSError as exc:
            if exc.errno not in _REFUSED:
                raise _cannot_open(path, exc) from exc
            refusal = exc.strerror
    else:
        refusal = None
    try:
        fd = os.open(path, _FLAGS | os.O_RDONLY)
    except OSError as exc:
        raise _cannot_open(path, exc) from exc
    if refusal is not None:
        log.warning("file may not be written, serving it read-only path=%s: %s", path, refusal)
    return fd, False


def _cannot_open(path: Path, exc: OSError) -> DeviceError:
    remedy = _REMEDIES.get(exc.errno or 0, "name a disk image or block device")
    return DeviceError(f"file: {path}: {exc.strerror}; {remedy}", exc.errno)


def _measured(path: Path, fd: int) -> ImageFile:
    found = os.fstat(fd)
    os.set_blocking(fd, True)  # only the opening must not wait
    if stat.S_ISREG(found.st_mode):
        return ImageFile(path, fd, found.st_size)
    if stat.S_ISBLK(found.st_mode):
        return ImageFile(path, fd, block_device_size(fd), sector=block_device_sector(fd))
    what = "a folder" if stat.S_ISDIR(found.st_mode) else "neither a file nor a block device"
    raise DeviceError(f"file: {path}: is {what}; name a disk image", errno.EINVAL)


def _take_lock(path: Path, fd: int, *, exclusive: bool) -> None:
    """Lock the open file, shared among readers; the lock ends with the descriptor (flock(2))."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        use = "uses" if exclusive else "writes to"
        remedy = "end it, serve the file --read-only" if exclusive else "end it"
        raise DeviceError(
            f"file: {path}: another process {use} it (flock); {remedy}, or put lock=false",
            errno.EBUSY,
        ) from exc
    except OSError as exc:  # a network file system without locks
        log.warning("file cannot be locked path=%s: %s", path, exc.strerror)
