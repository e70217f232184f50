import pytest

from gated_device import ALL, GatedDevice
from nbdserve.device import BlockSize, DeviceInfo, FileRange
from nbdserve.errors import ConfigError
from nbdserve.extents import DATA, Extent
from nbdserve.layers.slice import SliceLayer, SliceParams
from nbdserve.params import params_from


class LendingDevice(GatedDevice):
    def file_range(self, offset, length):
        return FileRange(7, offset)


async def open_slice(inner, **params):
    layer = SliceLayer(inner, SliceParams(**params))
    await layer.open(read_only=False)
    return layer


async def test_the_slice_has_its_own_size_and_the_capabilities_beneath():
    layer = await open_slice(GatedDevice(1 << 20), offset=4096, length=8192)
    assert layer.info == DeviceInfo(8192, BlockSize(), ALL)


@pytest.mark.parametrize(("offset", "size"), [(0, 4096), (1000, 3096), (4096, 0)])
async def test_without_a_length_it_reaches_to_the_end(offset, size):
    layer = await open_slice(GatedDevice(4096), offset=offset)
    assert layer.info.size == size


async def test_every_operation_is_shifted():
    inner = LendingDevice()
    layer = await open_slice(inner, offset=512, length=65536)
    view = memoryview(bytearray(16))
    await layer.read_into(8, view)
    assert bytes(view) == bytes(inner.data[520:536])
    assert layer.read_into_nowait(16, view)
    assert bytes(view) == bytes(inner.data[528:544])
    assert layer.file_range(24, 100) == FileRange(7, 536)
    await layer.write(0, memoryview(b"abcd"), fua=True)
    assert bytes(inner.data[512:516]) == b"abcd"
    await layer.write_zeroes(4, 40, fua=False, may_trim=True, fast=True)
    await layer.trim(8, 48, fua=True)
    await layer.flush()
    assert (await layer.extents(32, 4096))[0] == Extent(4096, DATA)
    await layer.cache(64, 128)
    assert inner.calls == [
        ("read", 520, 16),
        ("write", 512, 4, True),
        ("write_zeroes", 516, 40, False, True, True),
        ("trim", 520, 48, True),
        ("flush",),
        ("extents", 544, 4096),
        ("cache", 576, 128),
    ]


async def test_a_device_that_would_wait_makes_the_slice_wait():
    inner = GatedDevice()
    inner.hot = False
    layer = await open_slice(inner, offset=512)
    assert not layer.read_into_nowait(0, memoryview(bytearray(8)))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"offset": 4097},
            (
                "layer slice: offset: 4097 is past the end of the device beneath, which has 4096 "
                "bytes; choose a smaller offset"
            ),
        ),
        (
            {"offset": 4000, "length": 97},
            (
                "layer slice: length: 4000 + 97 is past the end of the device beneath, which has "
                "4096 bytes; at most 96 fit, or leave length out"
            ),
        ),
    ],
)
async def test_a_slice_outside_the_device_is_refused_at_open(params, message):
    with pytest.raises(ConfigError) as caught:
        await open_slice(GatedDevice(4096), **params)
    assert str(caught.value) == message


async def test_an_offset_between_the_blocks_beneath_is_refused():
    inner = GatedDevice(4096, block_size=BlockSize(512, 4096, 1 << 20))
    with pytest.raises(ConfigError, match="1000 is no multiple of 512"):
        await open_slice(inner, offset=1000)


def test_sizes_are_written_with_units():
    given = (("offset", "1M"), ("length", "512M"))
    params = params_from(SliceParams, given, element="layer slice")
    assert params == SliceParams(offset=1 << 20, length=512 << 20)
