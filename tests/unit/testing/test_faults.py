"""The scripted devices fail, hold and record exactly what a test asks of them."""

import asyncio

import pytest

from nbdserve.device import NoParams
from nbdserve.errors import DeviceError, NoSpaceError
from nbdserve.extents import ZERO_HOLE, Extent
from nbdserve.sources.file import FileParams, FileSource
from nbdserve.sources.memory import MemoryParams, MemorySource
from nbdserve.testing.faults import Call, FaultyDevice, RecordingDevice

SIZE = 1 << 20


@pytest.fixture
def memory():
    return MemorySource(MemoryParams(size=SIZE))


@pytest.fixture
def faulty(memory):
    return FaultyDevice(memory, NoParams())


@pytest.fixture
def recording(memory):
    return RecordingDevice(memory, NoParams())


async def call(device, operation):
    await {
        "read": lambda: device.read(0, 512),
        "write": lambda: device.write(0, memoryview(b"x"), fua=False),
        "write_zeroes": lambda: device.write_zeroes(0, 9, fua=False, may_trim=True, fast=False),
        "trim": lambda: device.trim(0, 9, fua=False),
        "flush": device.flush,
        "extents": lambda: device.extents(0, 9),
        "cache": lambda: device.cache(0, 9),
    }[operation]()


OPERATIONS = ["read", "write", "write_zeroes", "trim", "flush", "extents", "cache"]


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_one_call_fails_and_the_next_succeeds(faulty, operation):
    error = DeviceError("scripted")
    faulty.fail(operation, error=error)
    with pytest.raises(DeviceError) as caught:
        await call(faulty, operation)
    assert caught.value is error
    await call(faulty, operation)


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_failure_of_one_operation_leaves_the_others(faulty, operation):
    faulty.fail(operation, error=DeviceError("scripted"))
    for other in OPERATIONS:
        if other != operation:
            await call(faulty, other)


async def test_the_nth_call_fails(faulty):
    faulty.fail("flush", error=DeviceError("scripted"), after=2)
    await faulty.flush()
    await faulty.flush()
    with pytest.raises(DeviceError):
        await faulty.flush()
    await faulty.flush()


async def test_only_calls_that_touch_the_offset_fail(faulty):
    faulty.fail("read", error=DeviceError("scripted"), times=None, offset=4096)
    assert await faulty.read(0, 4096) == bytes(4096)
    assert await faulty.read(4097, 10) == bytes(10)
    for offset, length in [(0, 4097), (4096, 1), (4000, 4096)]:
        with pytest.raises(DeviceError):
            await faulty.read(offset, length)
    faulty.heal()
    assert await faulty.read(0, 8192) == bytes(8192)


async def test_a_failed_write_has_not_reached_the_device(faulty, memory):
    faulty.fail("write", error=NoSpaceError("scripted"))
    with pytest.raises(NoSpaceError):
        await faulty.write(0, memoryview(b"x"), fua=False)
    assert await memory.read(0, 1) == b"\0"


async def test_reads_that_a_script_concerns_are_not_answered_past_it(faulty):
    view = memoryview(bytearray(512))
    assert faulty.read_into_nowait(0, view)
    faulty.fail("read", error=DeviceError("scripted"), offset=1 << 19)
    assert not faulty.read_into_nowait(0, view)


async def test_a_gate_holds_calls_until_it_is_released(faulty):
    gate = faulty.hold("read")
    async with asyncio.TaskGroup() as group:
        first = group.create_task(faulty.read(0, 512))
        second = group.create_task(faulty.read(512, 512))
        await gate.waiting(2)
        assert gate.held == 2
        gate.release(1)
        assert await first == bytes(512)
        assert not second.done()
        gate.release()
    assert await faulty.read(0, 512) == bytes(512), "an open gate stays open"


async def test_gates_hold_only_what_they_were_asked_to(faulty):
    gate = faulty.hold("write", offset=100)
    await faulty.write(0, memoryview(bytes(100)), fua=False)
    await faulty.flush()
    assert gate.held == 0


async def test_a_held_call_can_be_cancelled(faulty):
    gate = faulty.hold("flush")
    held = asyncio.ensure_future(faulty.flush())
    await gate.waiting()
    held.cancel()
    with pytest.raises(asyncio.CancelledError):
        await held
    assert gate.held == 0
    gate.release()
    await faulty.flush()


async def test_a_held_call_fails_when_it_is_let_go(faulty):
    gate = faulty.hold("read")
    faulty.fail("read", error=DeviceError("scripted"))
    held = asyncio.ensure_future(faulty.read(0, 512))
    await gate.waiting()
    gate.release()
    with pytest.raises(DeviceError):
        await held


async def test_heal_lets_go_whatever_is_held(faulty):
    gate = faulty.hold("read")
    held = asyncio.ensure_future(faulty.read(0, 512))
    await gate.waiting()
    faulty.heal()
    assert await held == bytes(512)


async def test_every_call_is_recorded_in_order(recording):
    for operation in OPERATIONS:
        await call(recording, operation)
    assert recording.calls == [
        Call("read", 0, 512),
        Call("write", 0, 1),
        Call("write_zeroes", 0, 9),
        Call("trim", 0, 9),
        Call("flush", 0, 0),
        Call("extents", 0, 9),
        Call("cache", 0, 9),
    ]
    assert recording.made("trim") == [(0, 9)]


async def test_a_read_is_recorded_once_however_it_is_answered(memory):
    faulty = FaultyDevice(memory, NoParams())
    recording = RecordingDevice(faulty, NoParams())
    await recording.read(0, 512)
    faulty.fail("read", error=DeviceError("scripted"))
    with pytest.raises(DeviceError):
        await recording.read(4096, 512)
    assert recording.made("read") == [(0, 512), (4096, 512)]


async def test_what_they_do_not_script_passes_through(faulty, recording):
    for device in (faulty, recording):
        assert device.info == device.inner.info
        assert await device.extents(0, SIZE) == [Extent(SIZE, ZERO_HOLE)]


async def test_no_read_escapes_by_way_of_the_file(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(4096))
    file = FileSource(FileParams(path=path))
    await file.open(read_only=True)
    try:
        assert RecordingDevice(file, NoParams()).file_range(0, 512) is None
        faulty = FaultyDevice(file, NoParams())
        assert faulty.file_range(0, 512) == file.file_range(0, 512)
        faulty.hold("read")
        assert faulty.file_range(0, 512) is None
    finally:
        await file.close()
