"""A layer: letters are moved by 13 places on their way, in both directions."""

import codecs
from collections.abc import Sequence

from nbdserve.device import Device, DeviceInfo, Layer, NoParams
from nbdserve.extents import Extent

__all__ = ["Rot13Layer"]

_TABLE = bytes(
    ord(codecs.encode(chr(byte), "rot13")) if byte < 128 else byte for byte in range(256)
)


class Rot13Layer(Layer):
    """Move letters by 13 places.

    nbdserve --layer rot13 file secret.img
    """

    def __init__(self, inner: Device, params: NoParams) -> None:
        super().__init__(inner)

    @property
    def info(self) -> DeviceInfo:
        return self.inner.info

    def read_into_nowait(self, offset: int, view: memoryview) -> bool:
        if not self.inner.read_into_nowait(offset, view):
            return False
        view[:] = bytes(view).translate(_TABLE)
        return True

    async def read_into(self, offset: int, view: memoryview) -> None:
        await self.inner.read_into(offset, view)
        view[:] = bytes(view).translate(_TABLE)

    async def write(self, offset: int, data: memoryview, *, fua: bool) -> None:
        await self.inner.write(offset, memoryview(bytes(data).translate(_TABLE)), fua=fua)

    # A zero byte is no letter, so what is zero below is zero above: these may be passed on as they
    # are. file_range is not passed on: the file's own bytes are not what is read here.

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool, may_trim: bool, fast: bool
    ) -> None:
        await self.inner.write_zeroes(offset, length, fua=fua, may_trim=may_trim, fast=fast)

    async def trim(self, offset: int, length: int, *, fua: bool) -> None:
        await self.inner.trim(offset, length, fua=fua)

    async def flush(self) -> None:
        await self.inner.flush()

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        return await self.inner.extents(offset, length)

    async def cache(self, offset: int, length: int) -> None:
        await self.inner.cache(offset, length)
