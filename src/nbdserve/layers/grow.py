"""grow: the device beneath, followed by zeroes: a larger disk of the same contents.

A `Layer`, not a `Passthrough`: the device ends elsewhere than the one beneath, so every operation
is cut at that end by name. What lies past it can be kept nowhere, so nothing can be written here:
that is what `cow` on top is for.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

from nbdserve.device import Capability, Device, DeviceInfo, FileRange, Layer
from nbdserve.errors import ConfigError
from nbdserve.extents import ZERO_HOLE, Extent, clip, coalesce
from nbdserve.params import SIZE, param

__all__ = ["GrowLayer", "GrowParams"]

_ZEROES: Final = bytes(1 << 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowParams:
    """How large the disk is to be."""

    size: int = param(SIZE, help="size of the disk; at least that of the device beneath")


class GrowLayer(Layer):
    """Make the disk larger: zeroes follow what the device beneath has.

    Use it to give a guest more room than its image has, beneath `cow`, which keeps what the guest
    writes there. The zeroes are a hole and take no space. Whoever uses the disk still has to
    enlarge what is on it (cloud images do so at their first start).

        nbdserve --layer cow --layer grow:size=20G --layer xz http https://example.com/image.raw.xz
    """

    Params = GrowParams
    shareable = True
    writable = False
    writes_inner = False

    def __init__(self, inner: Device, params: GrowParams) -> None:
        super().__init__(inner)
        self._size = params.size
        self._end = 0  # where the device beneath ends and the zeroes begin
        self._info: DeviceInfo | None = None

    async def open(self, *, read_only: bool) -> None:
        """Fix both ends.

        Raises:
            ConfigError: the device beneath is larger, or has larger blocks.
        """
        beneath = self.inner.info
        if self._size < beneath.size:
            raise _size_error(
                f"{self._size} is less than the device beneath has, {beneath.size} bytes; write at "
                "least that, or take the layer out"
            )
        minimum = beneath.block_size.minimum
        if self._size % minimum:
            raise _size_error(
                f"{self._size} is no multiple of {minimum}, the smallest block of the device "
                "beneath; round it"
            )
        self._end = beneath.size
        can = beneath.can & ~Capability.WRITES | Capability.EXTENTS
        self._info = replace(beneath, size=self._size, can=can)

    @property
    def info(self) -> DeviceInfo:
        assert self._info is not None, "open() comes first"
        return self._info

    @property
    def identity(self) -> str | None:
        beneath = self.inner.identity
        return beneath and f"{beneath} grown to {self._size}"

    async def read_into(self, offset: int, view: memoryview) -> None:
        held = self._held(offset, len(view))
        if held:
            await self.inner.read_into(offset, view[:held])
        _fill_zeroes(view[held:])

    def read_into_nowait(self, offset: int, view: memoryview) -> bool:
        held = self._held(offset, len(view))
        if held and not self.inner.read_into_nowait(offset, view[:held]):
            return False
        _fill_zeroes(view[held:])
        return True

    async def stream(self, offset: int, length: int) -> AsyncGenerator[bytes | memoryview, None]:
        held = self._held(offset, length)
        if held:
            async with aclosing(self.inner.stream(offset, held)) as pieces:
                async for piece in pieces:
                    yield piece
        left = length - held
        while left:
            zeroes = _ZEROES[:left]
            yield zeroes
            left -= len(zeroes)

    def file_range(self, offset: int, length: int) -> FileRange | None:
        if self._held(offset, length) < length:
            return None
        return self.inner.file_range(offset, length)

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        held = self._held(offset, length)
        found = clip(await self.inner.extents(offset, held), held) if held else []
        if sum(extent.length for extent in found) == held:  # else the caller asks again
            found.append(Extent(length - held, ZERO_HOLE))
        return coalesce(found)

    async def cache(self, offset: int, length: int) -> None:
        if held := self._held(offset, length):
            await self.inner.cache(offset, held)

    def _held(self, offset: int, length: int) -> int:
        """Return how many bytes of a range, from its start, the device beneath holds."""
        return max(min(self._end - offset, length), 0)


def _fill_zeroes(view: memoryview) -> None:
    for at in range(0, len(view), len(_ZEROES)):
        part = view[at : at + len(_ZEROES)]
        part[:] = memoryview(_ZEROES)[: len(part)]


def _size_error(text: str) -> ConfigError:
    return ConfigError(text, table="layer grow", key="size")
