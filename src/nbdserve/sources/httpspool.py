"""A file whose server knows no ranges: downloaded once, whole, into an unlinked temporary file.

The file has no name, so that nothing is left behind however the process ends.
"""

import errno
import hashlib
import logging
import os
import tempfile
from pathlib import Path

import aiohttp

from nbdserve.device import FileRange
from nbdserve.errors import CorruptDataError, DeviceError, NoSpaceError
from nbdserve.sources.httpbudget import Budget
from nbdserve.sources.httpretry import TransientError
from nbdserve.threads import run_cpu, run_io
from nbdserve.unbroken import run_unbroken

__all__ = ["Spool"]

log = logging.getLogger(__name__)

_REPORT_EVERY = 256 << 20  # bytes between two log lines of a long download


class Spool:
    """An unlinked temporary file holding a whole download.

    Args:
        folder: where; None for the system's.
        name: how messages call the source.
    """

    def __init__(self, folder: Path | None, name: str) -> None:
        self._name = name
        self._folder = folder
        self._fd = -1
        self.size = 0

    async def fill(self, response: aiohttp.ClientResponse, budget: Budget) -> None:
        """Write the body of an answer to the file, from its start.

        Raises:
            NoSpaceError: the temporary file system is full.
            TransientError: the body ended early.
        """
        if self._fd < 0:
            self._fd = await run_unbroken(self._make, undo=os.close)
        expected = response.content_length
        log.info("http server knows no ranges, downloading url=%s bytes=%s", self._name, expected)
        self.size = 0
        budget.reserve(expected or 0)
        left = expected or 0
        try:
            async for chunk in response.content.iter_chunked(1 << 20):
                budget.take_bytes(len(chunk), reserved=expected is not None)
                left -= len(chunk)
                await budget.pace()
                await run_unbroken(self._write, chunk)  # `close` comes after it, and not before
                self._tell_of(len(chunk), expected)
        finally:
            if expected is not None:
                budget.release(left)
        if expected is not None and self.size != expected:
            raise TransientError(f"the download ended at {self.size} of {expected} bytes")

    def _tell_of(self, length: int, expected: int | None) -> None:
        before, self.size = self.size, self.size + length
        if self.size // _REPORT_EVERY > before // _REPORT_EVERY:
            log.info("http downloading url=%s done=%d of=%s", self._name, self.size, expected)

    async def verify(self, sha256: str) -> None:
        """Hold the whole file against its hash.

        Raises:
            CorruptDataError: it is another.
        """
        found = await run_cpu(self._hash)
        if found != sha256:
            raise CorruptDataError(
                f"http: {self._name}: the file's sha256 is {found}, not {sha256}; "
                "get the right file, or correct sha256="
            )

    def file_range(self, offset: int) -> FileRange:
        """Tell where the bytes at `offset` lie."""
        return FileRange(self._fd, offset)

    def read_nowait(self, offset: int, view: memoryview) -> bool:
        """Fill `view` if the page cache holds its bytes."""
        try:
            return os.preadv(self._fd, [view], offset, os.RWF_NOWAIT) == len(view)
        except OSError:
            return False

    async def read(self, offset: int, view: memoryview) -> None:
        """Fill `view`."""
        await run_io(self._read, offset, view)

    def close(self) -> None:
        """Give the file back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _make(self) -> int:
        folder = self._folder or Path(tempfile.gettempdir())
        try:
            return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            if exc.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
                raise DeviceError(
                    f"http: cannot make a temporary file in {folder}: {exc.strerror}; "
                    "name another download-dir",
                    exc.errno,
                ) from exc
        fd, path = tempfile.mkstemp(dir=folder)  # a file system without O_TMPFILE
        Path(path).unlink()
        return fd

    def _write(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        done = 0
        try:
            while done < len(view):
                done += os.pwrite(self._fd, view[done:], self.size + done)
        except OSError as exc:
            if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise NoSpaceError(
                    f"http: no room for the download of {self._name} after {self.size} bytes; "
                    "name a download-dir with more"
                ) from exc
            raise

    def _hash(self) -> str:
        with os.fdopen(os.dup(self._fd), "rb") as file:
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _read(self, offset: int, view: memoryview) -> None:
        done = 0
        while done < len(view):
            count = os.preadv(self._fd, [view[done:]], offset + done)
            if count == 0:
                raise DeviceError(f"http: the download of {self._name} ends at {offset + done}")
            done += count
