import pytest

from gated_device import GatedDevice
from nbdserve.build import open_chain
from nbdserve.device import Capability, FileRange, NoParams
from nbdserve.errors import ReadOnlyError
from nbdserve.layers.readonly import ReadonlyLayer
from nbdserve.spec import ExportSpec, parse_layer, parse_source


class LendingDevice(GatedDevice):
    def file_range(self, offset, length):
        return FileRange(7, offset)


def test_all_capabilities_but_those_to_write_remain():
    layer = ReadonlyLayer(GatedDevice(4096), NoParams())
    assert layer.info.can == Capability.CACHE | Capability.EXTENTS
    assert layer.info.size == 4096


@pytest.mark.parametrize(
    "write",
    [
        lambda d: d.write(0, memoryview(b"x"), fua=False),
        lambda d: d.write_zeroes(0, 8, fua=False, may_trim=True, fast=False),
        lambda d: d.write_zeroes(0, 8, fua=False, may_trim=True, fast=True),
        lambda d: d.trim(0, 8, fua=False),
    ],
    ids=["write", "zero", "fast zero", "trim"],
)
async def test_every_kind_of_write_is_refused_and_reaches_nothing(write):
    inner = GatedDevice(4096)
    with pytest.raises(ReadOnlyError, match="the layer readonly refuses writes; take it out"):
        await write(ReadonlyLayer(inner, NoParams()))
    assert inner.calls == []


async def test_what_only_reads_is_forwarded():
    inner = LendingDevice(4096)
    layer = ReadonlyLayer(inner, NoParams())
    view = memoryview(bytearray(8))
    assert layer.read_into_nowait(8, view)
    assert bytes(view) == bytes(inner.data[8:16])
    assert layer.file_range(16, 8) == FileRange(7, 16)
    await layer.read_into(24, view)
    assert bytes(view) == bytes(inner.data[24:32])
    await layer.extents(0, 4096)
    await layer.cache(0, 4096)
    assert inner.calls == [("read", 24, 8), ("extents", 0, 4096), ("cache", 0, 4096)]


async def test_everything_beneath_is_opened_read_only(tmp_path):
    image = tmp_path / "golden.img"
    image.write_bytes(bytes(4096))
    chain = await open_chain(
        ExportSpec(parse_source(["file", str(image)]), (parse_layer("readonly"),))
    )
    try:
        assert not chain.devices[0].info.can & Capability.WRITES
    finally:
        await chain.close()
