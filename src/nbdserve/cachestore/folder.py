"""The folder of a persistent cache: what its files are called, how much room they take.

For each image `NAME.data` (`nbdserve.cachestore.chunkfile`) and `NAME.map`
(`nbdserve.cachestore.claims`), where the name is made of the image's identity, so that whoever
serves the same image finds the same files. The file `lock` is locked (flock) while files come, go
or shrink: to open or to evict, never to read or to add. All methods block.

Invariant: what has another name is not ours. It is neither counted nor removed, for an operator may
name a folder that holds other things too.
"""

import contextlib
import errno
import fcntl
import os
import re
from pathlib import Path
from typing import Final

from nbdserve.errors import DeviceError
from nbdserve.formats.cachemap import identity_digest

__all__ = ["Folder"]

_DATA: Final = ".data"
_MAP: Final = ".map"
_NAME: Final = 32  # hex digits: 128 bits
_OURS: Final = re.compile(rf"([0-9a-f]{{{_NAME}}})({re.escape(_DATA)}|{re.escape(_MAP)})")
_REMEDIES: Final = {
    errno.EACCES: "let this user write there",
    errno.EPERM: "let this user write there",
    errno.EROFS: "name a folder on a file system that can be written",
    errno.ENOTDIR: "name a folder",
    errno.EEXIST: "name a folder",
}


class Folder:
    """An open folder; made if it is not there.

    Attributes:
        path: where it is.
    """

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            DeviceError: it cannot be had.
        """
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            remedy = _REMEDIES.get(exc.errno or 0, "check it, or name another path=")
            raise DeviceError(f"cache: {path}: {exc.strerror}; {remedy}", exc.errno) from exc

    def close(self) -> None:
        """Close it; this gives up the lock too."""
        os.close(self._lock)

    def try_lock(self) -> bool:
        """Lock the folder against other processes, unless one has it locked just now."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def unlock(self) -> None:
        """Give up the lock."""
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    @staticmethod
    def name_of(identity: str) -> str:
        """Return what the files of an image are called, without their endings."""
        return identity_digest(identity).hex()[:_NAME]

    def names(self) -> list[str]:
        """List the images that have files here."""
        found = (_OURS.fullmatch(path.name) for path in self.path.iterdir())
        return sorted(name[1] for name in found if name is not None and name[2] == _DATA)

    def data(self, name: str) -> Path:
        """Return the file of chunks of an image."""
        return self.path / f"{name}{_DATA}"

    def map(self, name: str) -> Path:
        """Return the map of an image."""
        return self.path / f"{name}{_MAP}"

    def usage(self) -> int:
        """Return the bytes that all images take on disk (stat(2), st_blocks).

        Raises:
            OSError: the folder cannot be looked into.
        """
        total = 0
        with os.scandir(self.path) as entries:
            for entry in entries:
                if _OURS.fullmatch(entry.name):
                    with contextlib.suppress(FileNotFoundError):
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
        return total

    def remove(self, name: str) -> None:
        """Remove the files of an image that nobody has open."""
        for path in (self.map(name), self.data(name)):
            path.unlink(missing_ok=True)
