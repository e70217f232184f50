import pytest

from gated_device import GatedDevice
from nbdserve.device import BlockSize, Capability, FileRange
from nbdserve.errors import ConfigError
from nbdserve.extents import DATA, ZERO_HOLE, Extent
from nbdserve.layers.grow import GrowLayer, GrowParams


class LendingDevice(GatedDevice):
    def file_range(self, offset, length):
        return FileRange(7, offset)


async def open_grown(inner, size):
    layer = GrowLayer(inner, GrowParams(size=size))
    await layer.open(read_only=True)
    return layer


async def test_it_is_as_large_as_told_and_cannot_be_written():
    layer = await open_grown(GatedDevice(4096), 1 << 40)
    assert layer.info.size == 1 << 40
    assert layer.info.can == Capability.CACHE | Capability.EXTENTS


@pytest.mark.parametrize("hot", [True, False])
async def test_a_read_over_the_end_gives_what_is_there_and_zeroes(hot):
    inner = GatedDevice(4096)
    inner.hot = hot
    layer = await open_grown(inner, 4 << 20)
    assert await layer.read(4090, 3 << 20) == bytes(inner.data[4090:]) + bytes((3 << 20) - 6)
    assert inner.calls == ([] if hot else [("read", 4090, 6)])


async def test_past_the_end_nothing_beneath_is_asked():
    inner = LendingDevice(4096)
    inner.hot = False
    layer = await open_grown(inner, 1 << 20)
    view = memoryview(bytearray(b"x" * 512))
    assert layer.read_into_nowait(4096, view)
    assert bytes(view) == bytes(512)
    assert await layer.extents(4096, 8192) == [Extent(8192, ZERO_HOLE)]
    await layer.cache(4096, 4096)
    assert layer.file_range(4000, 100) is None
    assert layer.file_range(3996, 100) == FileRange(7, 3996)
    assert inner.calls == []


async def test_the_zeroes_are_a_hole():
    layer = await open_grown(GatedDevice(4096), 1 << 20)
    assert await layer.extents(1024, 8192) == [Extent(3072, DATA), Extent(5120, ZERO_HOLE)]


async def test_what_the_device_beneath_stops_short_of_is_not_told():
    class Terse(GatedDevice):
        async def extents(self, offset, length):
            return [Extent(512, DATA)]

    layer = await open_grown(Terse(4096), 1 << 20)
    assert await layer.extents(0, 8192) == [Extent(512, DATA)]


async def test_a_stream_goes_on_with_zeroes():
    inner = GatedDevice(4096)
    layer = await open_grown(inner, 3 << 20)
    pieces = [bytes(piece) async for piece in layer.stream(4000, (2 << 20) + 7)]
    assert b"".join(pieces) == bytes(inner.data[4000:]) + bytes((2 << 20) + 7 - 96)


async def test_a_device_that_is_larger_is_refused():
    with pytest.raises(ConfigError) as caught:
        await open_grown(GatedDevice(4096), 4095)
    assert str(caught.value) == (
        "layer grow: size: 4095 is less than the device beneath has, 4096 bytes; write at least "
        "that, or take the layer out"
    )


async def test_a_size_between_the_blocks_beneath_is_refused():
    inner = GatedDevice(4096, block_size=BlockSize(512, 4096, 1 << 20))
    with pytest.raises(ConfigError, match="5000 is no multiple of 512"):
        await open_grown(inner, 5000)
