import asyncio
import contextlib
import logging
import re

import pytest

from gated_device import GatedDevice
from nbdserve.device import FileRange
from nbdserve.errors import DeviceError, NoSpaceError
from nbdserve.layers.log import LogLayer, LogParams


class LendingDevice(GatedDevice):
    def file_range(self, offset, length):
        return FileRange(7, offset) if length >= 16 else None


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, "nbdserve.layers.log")

    def read():
        return [without_duration(record.getMessage()) for record in caplog.records]

    return read


def without_duration(line):
    return re.sub(r"duration=\d+\.\d{6}", "duration=D", line)


def view_of(length):
    return memoryview(bytearray(length))


async def test_each_operation_is_forwarded_and_logged_with_its_facts(lines):
    inner = GatedDevice(4096)
    layer = LogLayer(inner, LogParams())
    await layer.read_into(8, view_of(16))
    await layer.write(8, memoryview(b"ab"), fua=True)
    await layer.write_zeroes(8, 32, fua=False, may_trim=True, fast=True)
    await layer.trim(8, 64, fua=False)
    await layer.flush()
    await layer.extents(8, 128)
    await layer.cache(8, 256)
    assert lines() == [
        "read offset=8 length=16 duration=D result=ok",
        "write offset=8 length=2 fua duration=D result=ok",
        "zero offset=8 length=32 may_trim fast duration=D result=ok",
        "trim offset=8 length=64 duration=D result=ok",
        "flush duration=D result=ok",
        "extents offset=8 length=128 duration=D result=ok",
        "cache offset=8 length=256 duration=D result=ok",
    ]
    assert [call[0] for call in inner.calls] == [
        "read", "write", "write_zeroes", "trim", "flush", "extents", "cache",
    ]  # fmt: skip


async def test_a_read_answered_at_once_is_logged_and_a_declined_one_is_not(lines):
    inner = GatedDevice(4096)
    layer = LogLayer(inner, LogParams())
    assert layer.read_into_nowait(8, view_of(16))
    inner.hot = False
    assert not layer.read_into_nowait(24, view_of(16))
    assert lines() == ["read offset=8 length=16 nowait duration=D result=ok"]


async def test_a_range_lent_for_a_zero_copy_send_is_logged(lines):
    layer = LogLayer(LendingDevice(4096), LogParams())
    assert layer.file_range(8, 16) == FileRange(7, 8)
    assert layer.file_range(8, 8) is None
    assert lines() == ["file_range offset=8 length=16 duration=D result=ok"]


async def test_a_failure_is_logged_with_its_error_and_raised(lines):
    inner = GatedDevice(4096)
    inner.failure = NoSpaceError("the disk is full")
    with pytest.raises(NoSpaceError):
        await LogLayer(inner, LogParams()).write(0, memoryview(b"ab"), fua=False)
    assert lines() == ["write offset=0 length=2 duration=D result=ENOSPC: the disk is full"]


async def test_an_exception_without_errno_is_logged_by_its_class(lines):
    inner = GatedDevice(4096)
    inner.failure = ValueError("odd")
    with pytest.raises(ValueError, match="odd"):
        await LogLayer(inner, LogParams()).flush()
    assert lines() == ["flush duration=D result=ValueError: odd"]


async def test_a_cancelled_request_is_logged_as_such(lines):
    inner = GatedDevice(4096)
    inner.gate.clear()
    read = asyncio.ensure_future(LogLayer(inner, LogParams()).read_into(0, view_of(8)))
    await inner.waiting.acquire()
    read.cancel()
    with pytest.raises(asyncio.CancelledError):
        await read
    assert lines() == ["read offset=0 length=8 duration=D result=cancelled"]


async def test_with_a_file_the_lines_are_appended_to_it_and_nowhere_else(tmp_path, lines):
    path = tmp_path / "requests.log"
    path.write_text("before\n")
    for _ in range(2):
        layer = LogLayer(GatedDevice(4096), LogParams(file=path))
        await layer.open(read_only=True)
        await layer.read_into(0, view_of(8))
        await layer.close()
    written = [re.sub(r"^\d{4}-\d\d-\d\d [\d:,]+ ", "", x) for x in path.read_text().splitlines()]
    once = [
        "opened size=4096 read_only=True",
        "read offset=0 length=8 duration=D result=ok",
        "closed",
    ]
    assert [without_duration(line) for line in written] == ["before", *once, *once]
    assert lines() == []


async def test_a_log_file_that_cannot_be_written_is_a_clear_error(tmp_path):
    layer = LogLayer(GatedDevice(4096), LogParams(file=tmp_path / "missing" / "requests.log"))
    with pytest.raises(DeviceError, match=r"requests\.log cannot be opened for appending: No such"):
        await layer.open(read_only=False)


async def test_a_stream_is_logged_once_with_how_it_ended(lines):
    inner = GatedDevice(4096)
    layer = LogLayer(inner, LogParams())
    async for _ in layer.stream(8, 16):
        pass
    async with contextlib.aclosing(layer.stream(0, 32)) as pieces:
        await anext(pieces)
    inner.failure = NoSpaceError("full")
    with pytest.raises(NoSpaceError):
        await anext(layer.stream(0, 8))
    assert lines() == [
        "read offset=8 length=16 stream duration=D result=ok",
        "read offset=0 length=32 stream duration=D result=stopped at=32",
        "read offset=0 length=8 stream duration=D result=ENOSPC: full",
    ]
