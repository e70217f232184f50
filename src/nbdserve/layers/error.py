"""error: fail requests on purpose.

One layer has one rate and one error; different rates for different commands are different layers
in a row, so that no key has to be multiplied by the number of commands.

Invariant: the fate of a request is drawn exactly once, in the call that carries it out.
`read_into_nowait` draws nothing: while a read may fail it declines, and the `read_into` that
follows decides. To draw there and to remember the outcome for that `read_into` would break the
rule that it changes no state, and would hand a stale outcome to another request whenever a caller
asks without following up.
"""

import errno
import logging
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from nbdserve.device import Device, FileRange, Passthrough
from nbdserve.errors import DeviceError
from nbdserve.extents import Extent
from nbdserve.params import FRACTION, INTEGER, PATH, choice, param

__all__ = ["ErrorLayer", "ErrorParams"]

log = logging.getLogger(__name__)

_COMMANDS = ("read", "write", "zero", "trim", "extents", "cache", "flush")
_ERRORS = {
    "EIO": errno.EIO,
    "EPERM": errno.EPERM,
    "ENOSPC": errno.ENOSPC,
    "ENOMEM": errno.ENOMEM,
    "EINVAL": errno.EINVAL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorParams:
    """Which requests fail, and how."""

    commands: tuple[str, ...] = param(
        choice(*_COMMANDS),
        default=(),
        many=True,
        help="a command that fails; give the key once for each (default: all of them)",
    )
    rate: float = param(FRACTION, default=1.0, help="the fraction of those requests that fails")
    count: int | None = param(
        INTEGER, default=None, help="fail this many requests, then none any more"
    )
    error: str = param(choice(*_ERRORS), default="EIO", help="the error the client gets")
    file: Path | None = param(PATH, default=None, help="fail requests only while this file exists")
    seed: int | None = param(
        INTEGER, default=None, help="draw the same requests each time, for repeatable tests"
    )


class ErrorLayer(Passthrough):
    """Inject errors into the requests of a client.

    Use it to see what a client, a guest or another layer does when a disk fails now and then. By
    default every request fails; `rate`, `count`, `commands` and `file` narrow that down. With
    `file`, errors begin when that file is made and end when it is removed. Different rates for
    different commands are written as one layer each.

        nbdserve --layer error:rate=1%,seed=7 file disk.img
        nbdserve --layer error:commands=write,commands=zero,count=3,error=ENOSPC file disk.img
    """

    Params = ErrorParams

    def __init__(self, inner: Device, params: ErrorParams) -> None:
        super().__init__(inner)
        self._params = params
        self._commands = frozenset(params.commands or _COMMANDS)
        self._errno = _ERRORS[params.error]
        self._random = random.Random(params.seed)  # noqa: S311 -- repeatable, not secret
        self._left = params.count

    def _may_fail(self, command: str) -> bool:
        params = self._params
        return (
            command in self._commands
            and params.rate > 0
            and self._left != 0
            and (params.file is None or params.file.exists())
        )

    def _draw(self, command: str, offset: int = 0, length: int = 0) -> None:
        """Decide the fate of one request.

        Raises:
            DeviceError: it is to fail.
        """
        # random() is below 1, so a rate of 1 always fails
        if not self._may_fail(command) or self._random.random() >= self._params.rate:
            return
        if self._left is not None:
            self._left -= 1
        log.debug("fault injected command=%s offset=%d length=%d", command, offset, length)
        raise DeviceError(
            f"injected by the layer error: {command} at offset {offset}, length {length}",
            self._errno,
        )

    async def read_into(self, offset: int, view: memoryview) -> None:
        self._draw("read", offset, len(view))
        await self.inner.read_into(offset, view)

    def read_into_nowait(self, offset: int, view: memoryview) -> bool:
        return not self._may_fail("read") and self.inner.read_into_nowait(offset, view)

    async def stream(self, offset: int, length: int) -> AsyncGenerator[bytes | memoryview, None]:
        self._draw("read", offset, length)
        async with aclosing(self.inner.stream(offset, length)) as pieces:
            async for piece in pieces:
                yield piece

    def file_range(self, offset: int, length: int) -> FileRange | None:
        return None if self._may_fail("read") else self.inner.file_range(offset, length)

    async def write(self, offset: int, data: memoryview, *, fua: bool) -> None:
        self._draw("write", offset, len(data))
        await self.inner.write(offset, data, fua=fua)

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool, may_trim: bool, fast: bool
    ) -> None:
        self._draw("zero", offset, length)
        await self.inner.write_zeroes(offset, length, fua=fua, may_trim=may_trim, fast=fast)

    async def trim(self, offset: int, length: int, *, fua: bool) -> None:
        self._draw("trim", offset, length)
        await self.inner.trim(offset, length, fua=fua)

    async def flush(self) -> None:
        self._draw("flush")
        await self.inner.flush()

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        self._draw("extents", offset, length)
        return await self.inner.extents(offset, length)

    async def cache(self, offset: int, length: int) -> None:
        self._draw("cache", offset, length)
        await self.inner.cache(offset, length)
