"""A file that appears whole or not at all: written beside its place, made durable, then put there.

Invariant: whatever ends the writing but a kill -9, nothing is left beside the file, and what was
there before is there still.
"""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from nbdserve.errors import DeviceError, NoSpaceError

__all__ = ["OutputFile"]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_CANNOT_LINK = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS})
_REMEDIES = {
    errno.ENOENT: "make its folder first",
    errno.ENOTDIR: "make its folder first",
    errno.EACCES: "check the permissions of its folder",
    errno.EROFS: "choose another folder, its file system is read-only",
}


class OutputFile:
    """A file being written; a context manager that discards what was not committed.

    Calls block; one at a time.

    Args:
        path: where it is to be; a symbolic link is followed.
        force: replace what is there.
        mode: its permissions, less the umask.

    Raises:
        DeviceError: something is there and `force` is not given, or it is no regular file; or the
            file cannot be made.
    """

    def __init__(self, path: Path, *, force: bool, mode: int = 0o666) -> None:
        self.path = Path(os.path.realpath(path))
        self._force = force
        self._refuse_what_is_there()
        # the name is nobody else's: not that of a process with this pid in another container, and
        # no link that somebody put there
        self._fresh = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.part")
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(self._fresh, flags, mode)
        except OSError as exc:
            raise self._failure(exc) from exc
        self._there = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._fd)
        if self._there:
            with contextlib.suppress(OSError):
                self._fresh.unlink()

    def write(self, parts: Iterable[bytes]) -> None:
        """Append these bytes.

        Raises:
            NoSpaceError: the file system is full.
            DeviceError: they cannot be written.
        """
        try:
            for part in parts:
                view = memoryview(part)
                while view:
                    view = view[os.write(self._fd, view) :]
        except OSError as exc:
            raise self._failure(exc) from exc

    def commit(self) -> None:
        """Make it durable and put it in its place, with one step that happens or does not.

        Raises:
            DeviceError: it cannot be done, or without `force` something is there by now.
        """
        try:
            os.fsync(self._fd)
            if self._force:
                self._fresh.replace(self.path)
            else:
                self._put()
            self._there = False
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except FileExistsError:
            raise self._exists() from None
        except OSError as exc:
            raise self._failure(exc) from exc

    def _put(self) -> None:
        """Give it its name unless that is taken: a rename would replace, a link never does."""
        try:
            os.link(self._fresh, self.path)
        except OSError as exc:
            if exc.errno not in _CANNOT_LINK:
                raise
            if self.path.exists():  # a file system without links: as good as it gets
                raise self._exists() from None
            self._fresh.rename(self.path)
        else:
            self._fresh.unlink()

    def _refuse_what_is_there(self) -> None:
        try:
            mode = self.path.stat().st_mode
        except FileNotFoundError:
            return
        except OSError as exc:
            raise self._failure(exc) from exc
        if not stat.S_ISREG(mode):
            what = "a folder" if stat.S_ISDIR(mode) else "no regular file"
            raise DeviceError(f"{self.path}: is {what}; name a file to write", errno.EEXIST)
        if not self._force:
            raise self._exists()

    def _exists(self) -> DeviceError:
        return DeviceError(f"{self.path}: is there already; --force replaces it", errno.EEXIST)

    def _failure(self, exc: OSError) -> DeviceError:
        text = f"{self.path}: cannot be written: {exc.strerror}"
        if exc.errno in _FULL:
            return NoSpaceError(f"{text}; make room, or write it elsewhere")
        remedy = _REMEDIES.get(exc.errno or 0, "check the disk and the folder")
        return DeviceError(f"{text}; {remedy}", exc.errno)
