import asyncio

import pytest

from gated_device import GatedDevice
from nbdserve.device import FileRange
from nbdserve.layers.delay import DelayLayer, DelayParams
from nbdserve.params import params_from


class LendingDevice(GatedDevice):
    def file_range(self, offset, length):
        return FileRange(7, offset)


@pytest.fixture
async def waited(monkeypatch):
    """Every timer set on the loop, in seconds; each fires at once."""
    loop = asyncio.get_running_loop()
    seconds = []

    def call_later(delay, callback, *args, context=None):
        seconds.append(delay)
        return loop.call_at(loop.time(), callback, *args, context=context)

    monkeypatch.setattr(loop, "call_later", call_later)
    return seconds


def view_of(length):
    return memoryview(bytearray(length))


OPERATIONS = {
    "read": (lambda d: d.read_into(8, view_of(16)), ("read", 8, 16)),
    "write": (lambda d: d.write(8, memoryview(b"ab"), fua=True), ("write", 8, 2, True)),
    "zero": (
        lambda d: d.write_zeroes(8, 16, fua=True, may_trim=False, fast=True),
        ("write_zeroes", 8, 16, True, False, True),
    ),
    "trim": (lambda d: d.trim(8, 16, fua=True), ("trim", 8, 16, True)),
    "extents": (lambda d: d.extents(8, 16), ("extents", 8, 16)),
    "cache": (lambda d: d.cache(8, 16), ("cache", 8, 16)),
    "flush": (lambda d: d.flush(), ("flush",)),
}


@pytest.mark.parametrize("key", OPERATIONS)
async def test_an_operation_waits_its_own_time_and_is_then_forwarded(key, waited):
    operate, call = OPERATIONS[key]
    inner = GatedDevice(4096)
    await operate(DelayLayer(inner, DelayParams(**{key: 1.5})))
    assert waited == [1.5]
    assert inner.calls == [call]


@pytest.mark.parametrize("key", OPERATIONS)
async def test_an_operation_without_a_delay_does_not_wait(key, waited):
    operate, call = OPERATIONS[key]
    inner = GatedDevice(4096)
    others = {other: 1.5 for other in OPERATIONS if other != key}
    await operate(DelayLayer(inner, DelayParams(**others)))
    assert waited == []
    assert inner.calls == [call]


async def test_opening_and_closing_wait(waited):
    layer = DelayLayer(GatedDevice(4096), DelayParams(open=2.0, close=3.0))
    await layer.open(read_only=False)
    assert waited == [2.0]
    await layer.close()
    assert waited == [2.0, 3.0]


async def test_nothing_happens_beneath_before_the_delay_is_over():
    inner = GatedDevice(4096)
    layer = DelayLayer(inner, DelayParams(write=3600.0))
    write = asyncio.ensure_future(layer.write(0, memoryview(b"x"), fua=False))
    await asyncio.wait({write}, timeout=0)
    assert not write.done()
    write.cancel()
    with pytest.raises(asyncio.CancelledError):
        await write
    assert inner.calls == []


async def test_with_a_read_delay_no_read_is_answered_at_once():
    layer = DelayLayer(LendingDevice(4096), DelayParams(read=0.001))
    assert not layer.read_into_nowait(0, view_of(8))
    assert layer.file_range(0, 8) is None


async def test_without_a_read_delay_reads_are_answered_at_once():
    layer = DelayLayer(LendingDevice(4096), DelayParams(write=0.001))
    assert layer.read_into_nowait(0, view_of(8))
    assert layer.file_range(0, 8) == FileRange(7, 0)


def test_durations_are_written_with_units():
    params = params_from(DelayParams, (("read", "20ms"), ("open", "1m")), element="layer delay")
    assert params == DelayParams(read=0.02, open=60.0)
