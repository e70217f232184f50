"""readonly: forbid every write, whatever the device beneath can do.

A `Layer`, not a `Passthrough`: an operation that is added to Device one day and changes bytes is
refused here until someone lets it through.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from nbdserve.device import Capability, Device, DeviceInfo, Done, FileRange, Layer, NoParams
from nbdserve.errors import ReadOnlyError
from nbdserve.extents import Extent

__all__ = ["ReadonlyLayer"]

_REFUSAL = "the layer readonly refuses writes; take it out of the chain to allow them"


class ReadonlyLayer(Layer):
    """Make the device beneath read-only.

    Use it to export an image that must not change, also beneath layers that would write to it.
    Everything beneath is opened read-only, so a file without write permission will do. For a
    whole export the option --read-only does the same.

        nbdserve --layer readonly file golden.img
    """

    shareable = True
    writable = False
    writes_inner = False

    def __init__(self, inner: Device, params: NoParams) -> None:
        super().__init__(inner)

    @property
    def info(self) -> DeviceInfo:
        beneath = self.inner.info
        return replace(beneath, can=beneath.can & ~Capability.WRITES)

    @property
    def identity(self) -> str | None:
        return self.inner.identity

    async def read_into(self, offset: int, view: memoryview) -> None:
        await self.inner.read_into(offset, view)

    def read_into_nowait(self, offset: int, view: memoryview) -> bool:
        return self.inner.read_into_nowait(offset, view)

    def begin_read(self, offset: int, view: memoryview, done: Done) -> bool:
        return self.inner.begin_read(offset, view, done)

    def stream(self, offset: int, length: int) -> AsyncGenerator[bytes | memoryview, None]:
        return self.inner.stream(offset, length)

    def file_range(self, offset: int, length: int) -> FileRange | None:
        return self.inner.file_range(offset, length)

    async def write(self, offset: int, data: memoryview, *, fua: bool) -> None:
        raise ReadOnlyError(_REFUSAL)

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool, may_trim: bool, fast: bool
    ) -> None:
        raise ReadOnlyError(_REFUSAL)

    async def trim(self, offset: int, length: int, *, fua: bool) -> None:
        raise ReadOnlyError(_REFUSAL)

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        return await self.inner.extents(offset, length)

    async def cache(self, offset: int, length: int) -> None:
        await self.inner.cache(offset, length)
