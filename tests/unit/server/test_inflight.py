"""What is under way: bounds, and answers that leave together."""

import asyncio
import errno

import pytest

from gated_device import GatedDevice
from nbdserve.protocol.constants import Command, WireError
from nbdserve.protocol.messages import ReplyMode, Request
from nbdserve.protocol.replies import replies_for
from nbdserve.server.inflight import InFlight
from nbdserve.server.limits import Limits
from nbdserve.sources.memory import MemoryParams, MemorySource


@pytest.fixture
def make():
    def made(device, **limits):
        answers = []
        in_flight = InFlight(
            device, replies_for(ReplyMode.SIMPLE), Limits(**limits), peer="test",
            on_answers=answers.append,
        )  # fmt: skip
        return in_flight, answers

    return made


async def turns_until(true):
    for _ in range(100):
        if true():
            return
        await asyncio.sleep(0)
    raise AssertionError("it does not come true")


def read(length=4096):
    return Request(0, Command.READ, 7, 0, length)


async def test_those_that_end_together_are_answered_together(make):
    device = GatedDevice()
    device.gate.clear()
    in_flight, answers = make(device)
    for _ in range(5):
        in_flight.start(read(512))
    for _ in range(5):
        await device.waiting.acquire()
    assert (in_flight.count, answers) == (5, [])
    device.gate.set()
    await turns_until(lambda: in_flight.is_idle)
    assert [len(group) for group in answers] == [10]  # a header and the bytes, five times


class Beginning(GatedDevice):
    """A device that begins reads without a task, and ends them when the test says so."""

    def __init__(self):
        super().__init__()
        self.begun = []
        self.error = None

    def begin_read(self, offset, view, done):
        if self.error is not None:
            raise self.error
        self.begun.append(done)
        view[:] = self.data[offset : offset + len(view)]
        return True


async def test_reads_begun_without_a_task_are_answered_when_they_end(make):
    device = Beginning()
    in_flight, answers = make(device)
    for _ in range(3):
        in_flight.read(read(512))
    assert in_flight.count == 3
    device.begun[2](None)
    device.begun[0](OSError(errno.EIO, "gone"))
    await turns_until(lambda: answers)
    ((header, data, failure),) = answers
    assert (header[:8], data) == (replies_for(ReplyMode.SIMPLE).done(read())[:8], device.data[:512])
    assert int.from_bytes(failure[4:8], "big") == WireError.EIO
    assert in_flight.count == 1
    await in_flight.cancel()
    device.begun[1](None)
    await asyncio.sleep(0)
    assert len(answers) == 1, "who is gone is not answered"


async def test_a_read_that_cannot_even_begin_is_answered(make):
    device = Beginning()
    device.error = MemoryError()
    in_flight, answers = make(device)
    in_flight.read(read())
    await turns_until(lambda: in_flight.is_idle)
    ((answer,),) = answers
    assert int.from_bytes(answer[4:8], "big") == WireError.ENOMEM


async def test_a_read_there_is_no_memory_for_is_answered(make):
    in_flight, answers = make(GatedDevice())
    in_flight.read(read(1 << 62))
    await turns_until(lambda: in_flight.is_idle)
    ((answer,),) = answers
    assert int.from_bytes(answer[4:8], "big") == WireError.ENOMEM


async def test_a_read_that_is_not_begun_gets_a_task(make):
    device = GatedDevice()
    in_flight, answers = make(device)
    in_flight.read(read(512))
    await turns_until(lambda: answers)
    assert answers[0][1] == device.data[:512]
    assert device.calls == [("read", 0, 512)]


async def test_one_request_is_always_admitted_and_no_more_than_the_limits(make):
    device = GatedDevice()
    device.gate.clear()
    in_flight, _ = make(device, max_in_flight=3, max_in_flight_bytes=10_000)
    assert in_flight.admits(read(1 << 20))
    in_flight.start(read(4096))
    assert in_flight.admits(read(5904))
    assert not in_flight.admits(read(5905))
    in_flight.start(read(0))
    in_flight.start(read(0))
    assert not in_flight.admits(read(0))
    await in_flight.cancel()


async def test_cancelled_requests_are_not_answered(make):
    device = GatedDevice()
    device.gate.clear()
    in_flight, answers = make(device)
    in_flight.start(read())
    await device.waiting.acquire()
    await in_flight.cancel()
    await asyncio.sleep(0)
    assert answers == []


async def test_what_ends_at_once_is_taken_with_its_batch(make):
    device = MemorySource(MemoryParams(size=1 << 20))
    in_flight, answers = make(device)
    in_flight.gather()
    for n in range(3):
        in_flight.write(Request(0, Command.WRITE, n, n * 512, 512, memoryview(bytes(512))))
    assert len(in_flight.take()) == 3
    assert in_flight.is_idle
    in_flight.write(Request(0, Command.WRITE, 9, 0, 512, memoryview(bytes(512))))
    assert not in_flight.is_idle
    await turns_until(lambda: in_flight.is_idle)
    assert [len(group) for group in answers] == [1]


async def test_a_write_that_cannot_even_begin_is_answered(make):
    class Full(MemorySource):
        def write_nowait(self, offset, data, *, fua, done):
            raise MemoryError

    in_flight, answers = make(Full(MemoryParams(size=1 << 20)))
    in_flight.write(Request(0, Command.WRITE, 1, 0, 8, memoryview(bytes(8))))
    await turns_until(lambda: in_flight.is_idle)
    ((answer,),) = answers
    assert int.from_bytes(answer[4:8], "big") == WireError.ENOMEM
