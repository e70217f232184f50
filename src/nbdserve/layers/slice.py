"""slice: a part of the device beneath, as a device of its own.

A `Layer`, not a `Passthrough`: each byte moves, so every operation is shifted here by name and
nothing can reach the bytes outside the slice by default.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace

from nbdserve.device import Device, DeviceInfo, Done, FileRange, Layer
from nbdserve.errors import ConfigError
from nbdserve.extents import Extent
from nbdserve.params import SIZE, param

__all__ = ["SliceLayer", "SliceParams"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceParams:
    """Which bytes make up the slice."""

    offset: int = param(SIZE, default=0, help="where the slice starts in the device beneath")
    length: int | None = param(
        SIZE, default=None, help="how long the slice is (default: to the end of the device)"
    )


class SliceLayer(Layer):
    """Serve a range of the device beneath as if it were the whole.

    Use it for one partition whose place is known, for the payload behind a header of fixed size,
    or to hide what follows the end of a file system. Reads, writes and holes are passed on,
    shifted by `offset`; the bytes outside the range can neither be seen nor written.

        nbdserve --layer slice:offset=1M,length=512M file disk.img
    """

    Params = SliceParams
    shareable = True

    def __init__(self, inner: Device, params: SliceParams) -> None:
        super().__init__(inner)
        self._params = params
        self._offset = params.offset
        self._info: DeviceInfo | None = None

    async def open(self, *, read_only: bool) -> None:
        """Fix the range.

        Raises:
            ConfigError: it does not lie within the device beneath, or off its blocks.
        """
        beneath = self.inner.info
        _refuse_outside(self._params, beneath)
        length = self._params.length
        size = beneath.size - self._offset if length is None else length
        self._info = replace(beneath, size=size)

    @property
    def info(self) -> DeviceInfo:
        assert self._info is not None, "open() comes first"
        return self._info

    @property
    def identity(self) -> str | None:
        beneath = self.inner.identity
        return beneath and f"{beneath} slice {self._offset}+{self.info.size}"

    async def read_into(self, offset: int, view: memoryview) -> None:
        await self.inner.read_into(self._offset + offset, view)

    def read_into_nowait(self, offset: int, view: memoryview) -> bool:
        return self.inner.read_into_nowait(self._offset + offset, view)

    def begin_read(self, offset: int, view: memoryview, done: Done) -> bool:
        return self.inner.begin_read(self._offset + offset, view, done)

    def stream(self, offset: int, length: int) -> AsyncGenerator[bytes | memoryview, None]:
        return self.inner.stream(self._offset + offset, length)

    def file_range(self, offset: int, length: int) -> FileRange | None:
        return self.inner.file_range(self._offset + offset, length)

    async def write(self, offset: int, data: memoryview, *, fua: bool) -> None:
        await self.inner.write(self._offset + offset, data, fua=fua)

    def write_nowait(self, offset: int, data: memoryview, *, fua: bool, done: Done) -> bool:
        return self.inner.write_nowait(self._offset + offset, data, fua=fua, done=done)

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool, may_trim: bool, fast: bool
    ) -> None:
        await self.inner.write_zeroes(
            self._offset + offset, length, fua=fua, may_trim=may_trim, fast=fast
        )

    async def trim(self, offset: int, length: int, *, fua: bool) -> None:
        await self.inner.trim(self._offset + offset, length, fua=fua)

    async def flush(self) -> None:
        await self.inner.flush()

    def flush_nowait(self, done: Done) -> bool:
        return self.inner.flush_nowait(done)

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        return await self.inner.extents(self._offset + offset, length)

    async def cache(self, offset: int, length: int) -> None:
        await self.inner.cache(self._offset + offset, length)


def _refuse_outside(params: SliceParams, beneath: DeviceInfo) -> None:
    """Raise ConfigError unless the slice lies on whole blocks within the device beneath."""
    size, minimum = beneath.size, beneath.block_size.minimum
    if params.offset > size:
        raise ConfigError(
            f"{params.offset} is past the end of the device beneath, which has {size} bytes; "
            "choose a smaller offset",
            table="layer slice",
            key="offset",
        )
    if params.length is not None and params.offset + params.length > size:
        raise ConfigError(
            f"{params.offset} + {params.length} is past the end of the device beneath, which has "
            f"{size} bytes; at most {size - params.offset} fit, or leave length out",
            table="layer slice",
            key="length",
        )
    if params.offset % minimum:
        raise ConfigError(
            f"{params.offset} is no multiple of {minimum}, the smallest block of the device "
            "beneath; round it",
            table="layer slice",
            key="offset",
        )
