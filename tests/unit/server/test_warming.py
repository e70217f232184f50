"""Warming: in order, a few at once, without holes, past what cannot be read."""

import asyncio

import pytest

from gated_device import GatedDevice
from nbdserve.device import Capability
from nbdserve.errors import DeviceError
from nbdserve.server.warming import warm

PIECE = 16 << 20


async def nothing(facts):
    pass


class Large(GatedDevice):
    """A device of many pieces without bytes; `bad` pieces cannot be read."""

    def __init__(self, pieces, *, can=Capability.CACHE, bad=(), zero=()):
        super().__init__(8, can=can)
        self._info = type(self._info)(pieces * PIECE, can=can)
        self.bad, self.zero = bad, zero

    async def cache(self, offset, length):
        await self._pass("cache", offset, length)
        if offset // PIECE in self.bad:
            raise DeviceError("the block is corrupt")

    async def read_into(self, offset, view):
        await self._pass("read", offset, len(view))

    async def extents(self, offset, length):
        from nbdserve.extents import DATA, ZERO_HOLE, Extent

        return [Extent(length, ZERO_HOLE if offset // PIECE in self.zero else DATA)]


async def test_pieces_are_made_fast_in_the_order_of_the_image():
    device = Large(6)
    done = await warm(device, 100, 5 * PIECE, nothing)
    assert device.calls == [
        ("cache", 100, PIECE - 100),
        *(("cache", number * PIECE, PIECE) for number in range(1, 5)),
        ("cache", 5 * PIECE, 100),
    ]
    assert (done["bytes"], done["failed"], done["error"]) == (5 * PIECE, 0, None)


async def test_four_are_under_way_at_once_and_no_more():
    device = Large(10)
    device.gate.clear()
    task = asyncio.create_task(warm(device, 0, 10 * PIECE, nothing))
    for _ in range(4):
        await device.waiting.acquire()
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(device.calls) == 4
    device.gate.set()
    assert (await task)["bytes"] == 10 * PIECE


async def test_a_device_that_takes_no_hint_is_read():
    device = Large(1, can=Capability.NONE)
    await warm(device, 0, PIECE, nothing)
    assert device.calls == [("read", at, 1 << 20) for at in range(0, PIECE, 1 << 20)]


async def test_what_is_zero_needs_no_warming():
    device = Large(4, zero=(0, 2))
    done = await warm(device, 0, 4 * PIECE, nothing)
    assert [offset // PIECE for _, offset, _ in device.calls] == [1, 3]
    assert done["bytes"] == 4 * PIECE


async def test_a_bad_piece_is_passed_over_and_told():
    device = Large(8, bad=(2, 5))
    done = await warm(device, 0, 8 * PIECE, nothing)
    assert len(device.calls) == 8
    assert done["failed"] == 2 * PIECE
    assert done["error"] == f"at {2 * PIECE}: the block is corrupt"


async def test_it_gives_up_when_nothing_can_be_read():
    device = Large(1000, bad=range(1000))
    done = await warm(device, 0, 1000 * PIECE, nothing)
    assert len(device.calls) < 25
    assert done["failed"] == 1000 * PIECE


async def test_progress_is_told_at_once():
    told = asyncio.Queue()
    device = Large(2)
    device.gate.clear()
    task = asyncio.create_task(warm(device, 0, 2 * PIECE, told.put))
    assert await told.get() == {"done": 0, "length": 2 * PIECE, "failed": 0}
    device.gate.set()
    await task


async def test_a_client_that_is_gone_ends_it():
    async def gone(facts):
        raise BrokenPipeError

    device = Large(1000)
    device.gate.clear()
    with pytest.raises(BrokenPipeError):
        await warm(device, 0, 1000 * PIECE, gone)


async def test_nothing_to_warm_is_warm():
    assert (await warm(Large(1), 0, 0, nothing))["bytes"] == 0
