import errno

import pytest

from gated_device import GatedDevice
from nbdserve.device import FileRange
from nbdserve.errors import ConfigError, DeviceError
from nbdserve.layers.error import ErrorLayer, ErrorParams
from nbdserve.params import params_from
from nbdserve.spec import parse_layer


class LendingDevice(GatedDevice):
    def file_range(self, offset, length):
        return FileRange(7, offset)


def view_of(length):
    return memoryview(bytearray(length))


OPERATIONS = {
    "read": lambda d: d.read_into(8, view_of(16)),
    "write": lambda d: d.write(8, memoryview(b"ab"), fua=True),
    "zero": lambda d: d.write_zeroes(8, 16, fua=True, may_trim=False, fast=True),
    "trim": lambda d: d.trim(8, 16, fua=True),
    "extents": lambda d: d.extents(8, 16),
    "cache": lambda d: d.cache(8, 16),
    "flush": lambda d: d.flush(),
}


async def outcomes(layer, number, operate=OPERATIONS["write"]):
    failed = []
    for _ in range(number):
        try:
            await operate(layer)
        except DeviceError:
            failed.append(True)
        else:
            failed.append(False)
    return failed


@pytest.mark.parametrize("command", OPERATIONS)
async def test_a_named_command_fails_and_never_reaches_the_device(command):
    inner = GatedDevice(4096)
    layer = ErrorLayer(inner, ErrorParams(commands=(command,)))
    with pytest.raises(DeviceError, match=f"injected by the layer error: {command} at offset"):
        await OPERATIONS[command](layer)
    assert inner.calls == []


@pytest.mark.parametrize("command", OPERATIONS)
async def test_other_commands_pass(command):
    inner = GatedDevice(4096)
    others = tuple(name for name in OPERATIONS if name != command)
    await OPERATIONS[command](ErrorLayer(inner, ErrorParams(commands=others)))
    assert len(inner.calls) == 1


@pytest.mark.parametrize("command", OPERATIONS)
async def test_by_default_every_command_fails(command):
    with pytest.raises(DeviceError):
        await OPERATIONS[command](ErrorLayer(GatedDevice(4096), ErrorParams()))


@pytest.mark.parametrize("name", ["EIO", "EPERM", "ENOSPC", "ENOMEM", "EINVAL"])
async def test_the_error_is_the_one_that_was_asked_for(name):
    with pytest.raises(DeviceError) as caught:
        await ErrorLayer(GatedDevice(4096), ErrorParams(error=name)).flush()
    assert caught.value.errno == getattr(errno, name)


async def test_after_count_failures_all_requests_pass():
    layer = ErrorLayer(GatedDevice(4096), ErrorParams(count=2))
    assert await outcomes(layer, 5) == [True, True, False, False, False]


async def test_a_rate_of_0_never_fails():
    assert not any(await outcomes(ErrorLayer(GatedDevice(4096), ErrorParams(rate=0.0)), 100))


async def test_the_same_seed_fails_the_same_requests_at_about_the_rate():
    runs = [
        await outcomes(ErrorLayer(GatedDevice(4096), ErrorParams(rate=0.25, seed=seed)), 1000)
        for seed in (7, 7, 8)
    ]
    assert runs[0] == runs[1] != runs[2]
    assert 200 < sum(runs[0]) < 300


async def test_requests_fail_only_while_the_file_exists(tmp_path):
    switch = tmp_path / "fail-now"
    layer = ErrorLayer(GatedDevice(4096), ErrorParams(file=switch))
    assert await outcomes(layer, 2) == [False, False]
    switch.touch()
    assert await outcomes(layer, 2) == [True, True]
    switch.unlink()
    assert await outcomes(layer, 2) == [False, False]


async def test_while_reads_may_fail_none_is_answered_at_once_and_one_draw_decides_each():
    layer = ErrorLayer(LendingDevice(4096), ErrorParams(rate=0.5, seed=1))
    alone = await outcomes(layer, 50, OPERATIONS["read"])
    layer = ErrorLayer(LendingDevice(4096), ErrorParams(rate=0.5, seed=1))
    asked = []
    for _ in range(50):
        assert not layer.read_into_nowait(8, view_of(16))
        assert layer.file_range(8, 16) is None
        asked += await outcomes(layer, 1, OPERATIONS["read"])
    assert alone == asked


async def test_once_reads_cannot_fail_they_are_answered_at_once():
    layer = ErrorLayer(LendingDevice(4096), ErrorParams(count=1))
    assert await outcomes(layer, 1, OPERATIONS["read"]) == [True]
    assert layer.read_into_nowait(8, view_of(16))
    assert layer.file_range(8, 16) == FileRange(7, 8)


def test_commands_are_given_one_by_one():
    element = parse_layer("error:commands=read,commands=write,rate=1%,error=ENOSPC,seed=7")
    params = params_from(ErrorParams, element.given, element="layer error")
    assert params == ErrorParams(commands=("read", "write"), rate=0.01, error="ENOSPC", seed=7)


def test_an_unknown_command_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match="one of read, write, zero, trim"):
        params_from(ErrorParams, (("commands", "pread"),), element="layer error")


async def test_a_stream_is_a_read():
    layer = ErrorLayer(GatedDevice(4096), ErrorParams(commands=("read",), count=1))
    with pytest.raises(DeviceError):
        await anext(layer.stream(8, 16))
    assert await anext(layer.stream(8, 16)) == GatedDevice(4096).data[8:24]
