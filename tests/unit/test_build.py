"""Building chains: the order of opening and closing, and who may write."""

import pytest

from nbdserve.build import open_chain
from nbdserve.device import Device, Layer
from nbdserve.errors import ConfigError, DeviceError
from nbdserve.registry import find_layer, find_source, layer_names, source_names
from nbdserve.spec import ElementSpec, ExportSpec

NULL = ElementSpec("null", (("size", "1M"),))


def export(source, *layers, read_only=False):
    return ExportSpec(source, tuple(map(ElementSpec, layers)), read_only=read_only)


async def test_the_leftmost_layer_is_outermost():
    chain = await open_chain(export(NULL, "log", "readonly"))
    assert [type(d).__name__ for d in chain.devices] == ["NullSource", "ReadonlyLayer", "LogLayer"]
    await chain.close()


async def test_what_was_opened_is_closed_when_a_layer_above_cannot_be(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(4096))
    for _ in range(2):  # the lock of the first try would refuse the second
        with pytest.raises(DeviceError, match="xz"):
            await open_chain(export(ElementSpec("file", (("", str(path)),)), "log", "xz"))
    chain = await open_chain(export(ElementSpec("file", (("", str(path)),))))
    await chain.close()


@pytest.mark.parametrize("layers", [["cow"], ["readonly"], ["log", "cow"]])
async def test_what_lies_under_a_layer_that_never_writes_is_opened_read_only(tmp_path, layers):
    path = tmp_path / "golden.img"
    path.write_bytes(bytes(1 << 20))
    spec = export(ElementSpec("file", (("", str(path)),)), *layers)
    first, second = await open_chain(spec), await open_chain(spec)
    assert not first.devices[0].info.can & first.devices[0].info.can.WRITE
    await first.close()
    await second.close()


async def test_a_read_only_export_opens_everything_read_only(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(1 << 20))
    spec = export(ElementSpec("file", (("", str(path)),)), read_only=True)
    chain = await open_chain(spec)
    assert not chain.outermost.info.can & chain.outermost.info.can.WRITE
    await chain.close()


def test_every_name_leads_to_its_class():
    assert all(issubclass(find_source(name), Device) for name in source_names())
    assert all(issubclass(find_layer(name), Layer) for name in layer_names())


@pytest.mark.parametrize(
    ("find", "name", "told"),
    [
        (find_source, "fiel", "did you mean 'file'"),
        (find_source, "xz", "write --layer xz"),
        (find_layer, "http", "it goes last"),
        (find_layer, "cwo", "did you mean 'cow'"),
    ],
)
def test_an_unknown_name_is_told_with_the_right_one(find, name, told):
    with pytest.raises(ConfigError, match=told):
        find(name)
