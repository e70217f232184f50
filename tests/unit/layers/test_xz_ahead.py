"""The xz layer ahead of its readers: packed blocks of who goes in order, holes before a copy."""

import asyncio
import os

import pytest

from nbdserve.errors import SourceUnavailableError
from nbdserve.extents import DATA, ZERO_HOLE
from nbdserve.xzengine import blocks
from xz_chain import Slow, chains, noise, read_all, settle, xz

BLOCK = 64 << 10


def uneven(blocks):
    """An image whose blocks are not packed into the same number of bytes, so no two may be one."""
    parts = (noise(BLOCK - 64 * number, number) for number in range(blocks))
    return b"".join(part + bytes(BLOCK - len(part)) for part in parts)


@pytest.fixture
async def chain(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    async with chains() as made:
        yield made


async def read_blocks(made, image, numbers):
    for number in numbers:
        assert await made.layer.read(number * BLOCK, 100) == image[number * BLOCK :][:100]
    await settle()


async def test_packed_blocks_follow_a_reader_in_order_and_are_fetched_once(chain):
    image = uneven(16)
    made = await chain(xz(image, f"--block-size={BLOCK}"))
    await read_blocks(made, image, range(6))
    assert made.layer.status()["blocks_decoded"] == 6
    assert len(made.fetched) == 9, "3 more than it has read since it was believed to go in order"
    assert await read_all(made.layer, BLOCK) == image
    assert len(made.fetched) == len(set(made.fetched)) == 16


async def test_what_is_fetched_ahead_is_a_tenth_of_the_cache(chain):
    image = uneven(16)
    made = await chain(xz(image, f"--block-size={BLOCK}"), cache=12 * BLOCK)
    await read_blocks(made, image, range(8))
    assert len(made.fetched) == 9, "one, and half of one is too little to begin with"


async def test_a_reader_that_turned_away_makes_room_for_another(chain):
    image = uneven(64)
    made = await chain(xz(image, f"--block-size={BLOCK}"), cache=12 * BLOCK)
    await read_blocks(made, image, range(6))
    before = len(made.fetched)
    await read_blocks(made, image, range(20, 44))
    assert len(made.fetched) == before + 24 + 1


async def test_who_jumps_into_the_middle_of_neighbours_costs_no_fetch(chain, monkeypatch):
    monkeypatch.setattr(blocks, "_NEAR", 0)
    image = uneven(16)
    made = await chain(xz(image, f"--block-size={BLOCK}"))
    for number in range(6):
        at = number * BLOCK + BLOCK // 2
        assert await made.layer.read(at, 100) == image[at:][:100]
    await settle()
    assert len(made.fetched) == 6


async def test_a_fetch_ahead_that_failed_is_tried_by_who_needs_it(chain):
    image = uneven(16)
    made = await chain(xz(image, f"--block-size={BLOCK}"), cache=12 * BLOCK)
    await read_blocks(made, image, range(5))
    made.faults.fail("read", error=SourceUnavailableError("away"))
    await read_blocks(made, image, range(5, 6))  # which begins to fetch what fails
    await read_blocks(made, image, range(6, 16))


async def test_holes_are_looked_for_all_over_the_image_at_once(chain):
    part = noise(200_000) + bytes(200_000)
    made = await chain(xz(part * 4, "--block-size=200000"))
    gate = made.faults.hold("read")
    asked = asyncio.create_task(made.layer.extents(0, 4 * len(part)))
    await gate.waiting(4)
    gate.release()
    assert await asked == [(200_000, DATA), (200_000, ZERO_HOLE)] * 4


async def test_a_source_that_breaks_its_contract_is_told_of_as_it_is(chain):
    part = noise(200_000) + bytes(200_000)
    made = await chain(xz(part * 4, "--block-size=200000"))
    made.faults.fail("read", error=ZeroDivisionError("a bug"), times=None)
    with pytest.raises(ZeroDivisionError):
        await made.layer.extents(0, 4 * len(part))


async def test_a_cache_of_nothing_serves_a_reader_in_order(chain, monkeypatch):
    image = uneven(16)
    made = await chain(xz(image, f"--block-size={BLOCK}"), cache=0)
    Slow(made, monkeypatch).allow(2 * len(image))  # in pieces, as from a network
    async with asyncio.timeout(30):
        await read_blocks(made, image, range(16))
