"""The errors of nbdserve, by whose they are: the user's, the peer's, or the data's.

One class per answer, so that no caller has to look into a message to know what to do:
a `ConfigError` ends the command with status 2, a `ProtocolError` ends one connection, and a
`DeviceError` is the answer to one request. No `DeviceError` ever ends the daemon.
"""

import errno as _errno
from pathlib import Path
from typing import ClassVar

__all__ = [
    "ConfigError",
    "CorruptDataError",
    "DeviceError",
    "NbdserveError",
    "NoSpaceError",
    "NotSupportedError",
    "ProtocolError",
    "ReadOnlyError",
    "SourceUnavailableError",
]


class NbdserveError(Exception):
    """Any error this project raises on purpose; its text is one line for the operator."""


class ConfigError(NbdserveError):
    """What the operator wrote cannot be used; ends the command with exit status 2.

    Args:
        message: what is wrong and what to write instead, one line.
        file: the configuration file it stands in, if any.
        table: the TOML table or command-line element it belongs to, if any.
        key: the key, if any.
    """

    def __init__(
        self,
        message: str,
        *,
        file: Path | str | None = None,
        table: str | None = None,
        key: str | None = None,
    ) -> None:
        self.message = message
        self.file = file
        self.table = table
        self.key = key
        place = [str(part) for part in (file, table, key) if part is not None]
        super().__init__(": ".join([*place, message]))


class ProtocolError(NbdserveError):
    """The peer broke the NBD protocol so that its connection cannot go on."""


class DeviceError(NbdserveError, OSError):
    """A request, or the opening of a device, failed; carries the errno the client gets.

    Args:
        message: what, where and what to do, one line. It travels to the client in the
            structured error chunk.
        errno: overrides the class's own errno.
    """

    code: ClassVar[int] = _errno.EIO

    def __init__(self, message: str, errno: int | None = None) -> None:
        OSError.__init__(self, self.code if errno is None else errno, message)

    def __str__(self) -> str:
        return str(self.strerror)


class ReadOnlyError(DeviceError):
    """A write reached a device that cannot be written (EPERM)."""

    code = _errno.EPERM


class NoSpaceError(DeviceError):
    """The device, or the file system beneath it, is full (ENOSPC)."""

    code = _errno.ENOSPC


class NotSupportedError(DeviceError):
    """The device cannot do this, or not fast (ENOTSUP)."""

    code = _errno.EOPNOTSUPP


class SourceUnavailableError(DeviceError):
    """The source did not answer in time, or went away (EIO)."""


class CorruptDataError(DeviceError):
    """The source answered with bytes that fail their check (EIO); they are never served."""
