"""A file on another machine, read by dd over ssh: a device like any source of nbdserve.

So an image on the export server is looked at by the same code as one on the web, with no more there
than GNU coreutils. It is for a few small reads at the ends of a file; what takes all of it, a
checksum, is taken there, and only the sum comes over.
"""

import re
from collections.abc import Sequence
from typing import Final, Protocol

from minicloud.errors import StorageError
from nbdserve.device import Device, DeviceInfo

__all__ = ["FarFile", "Shell", "far_sum"]

_SUM: Final = re.compile(rb"\\?([0-9a-f]+) ")  # a backslash: the name is written with escapes
_DAY: Final = 86400.0  # seconds: the command's own time ends it sooner


class _Done(Protocol):
    @property
    def status(self) -> int: ...

    @property
    def stdout(self) -> bytes: ...

    @property
    def stderr(self) -> bytes: ...


class Shell(Protocol):
    """Runs commands on the machine; `minicloud.ssh.session.Session` is one."""

    async def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", deadline: float | None = 10
    ) -> _Done:
        """Run a command and wait for its end; NodeError where there is none."""


class FarFile(Device):
    """A file there; `open` before anything else.

    Args:
        shell: of the machine.
        path: of the file, from the root.
    """

    def __init__(self, shell: Shell, path: str) -> None:
        self._shell = shell
        self._path = path
        self._size = 0

    async def open(self, *, read_only: bool) -> None:
        told = await _ran(self._shell, ["stat", "--dereference", "--format=%s", "--", self._path])
        self._size = int(told)

    @property
    def info(self) -> DeviceInfo:
        return DeviceInfo(self._size)

    async def read_into(self, offset: int, view: memoryview) -> None:
        data = await _ran(
            self._shell,
            [
                "dd", f"if={self._path}", "bs=64K", "iflag=fullblock,skip_bytes,count_bytes",
                f"skip={offset}", f"count={len(view)}", "status=none",
            ],
        )  # fmt: skip
        if len(data) != len(view):
            raise StorageError("damaged", f"{self._path} became shorter while it was looked at")
        view[:] = data


async def far_sum(shell: Shell, path: str, name: str) -> str:
    """Take a checksum there.

    Args:
        shell: of the machine.
        path: of the file.
        name: of the algorithm: sha256, sha512.

    Returns:
        Hex.
    """
    told = await _ran(shell, [f"{name}sum", "--", path], deadline=_DAY)
    match = _SUM.match(told)
    if match is None:
        raise StorageError("damaged", f"{name}sum of {path} printed no sum")
    return match[1].decode()


async def _ran(shell: Shell, argv: Sequence[str], *, deadline: float = 10) -> bytes:
    done = await shell.run(argv, deadline=deadline)
    if done.status != 0:
        complaint = " ".join(done.stderr.decode(errors="replace").split())
        raise StorageError("unreachable", complaint or f"{argv[0]} ended with {done.status}")
    return done.stdout
