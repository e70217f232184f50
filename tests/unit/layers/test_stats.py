import asyncio
import contextlib
import logging

import pytest

from gated_device import GatedDevice
from nbdserve.device import FileRange, NoParams
from nbdserve.errors import DeviceError
from nbdserve.layers.stats import StatsLayer


class LendingDevice(GatedDevice):
    def file_range(self, offset, length):
        return FileRange(7, offset) if length >= 16 else None


def view_of(length):
    return memoryview(bytearray(length))


async def use_everything(layer):
    await layer.read_into(8, view_of(16))
    await layer.write(8, memoryview(b"ab"), fua=True)
    await layer.write_zeroes(8, 32, fua=True, may_trim=False, fast=True)
    await layer.trim(8, 64, fua=True)
    await layer.flush()
    await layer.extents(8, 128)
    await layer.cache(8, 256)


async def test_each_operation_is_counted_with_its_bytes_and_forwarded():
    inner = GatedDevice(4096)
    layer = StatsLayer(inner, NoParams())
    await use_everything(layer)
    found = {n: (c.count, c.bytes, sum(c.buckets)) for n, c in layer.snapshot().items()}
    assert found == {
        "read": (1, 16, 1),
        "file_range": (0, 0, 0),
        "write": (1, 2, 1),
        "zero": (1, 32, 1),
        "trim": (1, 64, 1),
        "flush": (1, 0, 1),
        "extents": (1, 128, 1),
        "cache": (1, 256, 1),
    }
    assert inner.calls == [
        ("read", 8, 16),
        ("write", 8, 2, True),
        ("write_zeroes", 8, 32, True, False, True),
        ("trim", 8, 64, True),
        ("flush",),
        ("extents", 8, 128),
        ("cache", 8, 256),
    ]


async def test_a_read_answered_at_once_is_counted_and_a_declined_one_is_not():
    inner = GatedDevice(4096)
    layer = StatsLayer(inner, NoParams())
    assert layer.read_into_nowait(0, view_of(8))
    inner.hot = False
    assert not layer.read_into_nowait(0, view_of(8))
    counted = layer.snapshot()["read"]
    assert (counted.count, counted.bytes) == (1, 8)


async def test_a_range_lent_for_a_zero_copy_send_is_counted():
    layer = StatsLayer(LendingDevice(4096), NoParams())
    assert layer.file_range(0, 16) == FileRange(7, 0)
    assert layer.file_range(0, 8) is None
    counted = layer.snapshot()["file_range"]
    assert (counted.count, counted.bytes) == (1, 16)


async def test_a_failure_is_counted_as_an_error_without_bytes():
    inner = GatedDevice(4096)
    inner.failure = DeviceError("broken")
    layer = StatsLayer(inner, NoParams())
    with pytest.raises(DeviceError, match="broken"):
        await layer.write(0, memoryview(b"ab"), fua=False)
    counted = layer.snapshot()["write"]
    assert (counted.count, counted.errors, counted.bytes) == (1, 1, 0)


async def test_a_cancelled_request_counts_as_neither():
    inner = GatedDevice(4096)
    inner.gate.clear()
    layer = StatsLayer(inner, NoParams())
    read = asyncio.ensure_future(layer.read_into(0, view_of(8)))
    await inner.waiting.acquire()
    read.cancel()
    with pytest.raises(asyncio.CancelledError):
        await read
    assert layer.snapshot()["read"].count == 0


async def test_closing_logs_one_line_for_each_operation_used(caplog):
    layer = StatsLayer(GatedDevice(4096), NoParams())
    await layer.read_into(0, view_of(8))
    await layer.flush()
    with caplog.at_level(logging.INFO, "nbdserve.layers.stats"):
        await layer.close()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert lines[0].startswith("operation=read count=1 errors=0 bytes=8 mean=")
    assert lines[1].startswith("operation=flush count=1 errors=0 bytes=0 mean=")


async def test_a_stream_is_a_read_of_what_was_taken_of_it():
    layer = StatsLayer(GatedDevice(4096), NoParams())
    assert len(b"".join([piece async for piece in layer.stream(0, 4000)])) == 4000
    async with contextlib.aclosing(layer.stream(0, 2000)) as pieces:
        await anext(pieces)
    found = layer.snapshot()["read"]
    assert (found.count, found.bytes, found.errors) == (2, 6000, 0)


async def test_a_stream_that_fails_is_an_error():
    inner = GatedDevice(4096)
    inner.failure = DeviceError("gone")
    layer = StatsLayer(inner, NoParams())
    with pytest.raises(DeviceError):
        await anext(layer.stream(0, 16))
    found = layer.snapshot()["read"]
    assert (found.errors, found.bytes) == (1, 0)
