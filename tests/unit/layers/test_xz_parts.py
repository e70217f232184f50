"""Short blocks served in parts: before their check where LZMA2's own test has passed, else not."""

import asyncio
import random

import pytest

from nbdserve.errors import CorruptDataError
from xz_chain import Slow, chains, noise, prose, read_all, settle, turns, xz

MIB = 1 << 20


@pytest.fixture
async def chain():
    async with chains() as made:
        yield made


async def whole(made):
    """Wait until the only block is decoded."""
    async with asyncio.timeout(30):
        while not made.layer.status()["blocks_decoded"]:
            await settle()
    await settle()


async def test_a_read_is_answered_before_the_block_has_come(chain, monkeypatch):
    image = prose(4 * MIB)
    packed = xz(image)
    made = await chain(packed)
    slow = Slow(made, monkeypatch)
    slow.allow(len(packed) // 2)
    assert await made.layer.read(MIB, 5000) == image[MIB:][:5000]
    assert made.layer.status()["blocks_decoded"] == 0
    slow.allow(len(packed))
    assert await made.layer.read(3 * MIB, 10) == image[3 * MIB :][:10]
    await whole(made)
    assert made.layer.status()["packed_reads"] == 1
    assert made.layer.read_into_nowait(0, memoryview(bytearray(4 * MIB)))


async def test_the_block_comes_to_its_end_though_nobody_waits(chain, monkeypatch):
    packed = xz(prose(4 * MIB))
    made = await chain(packed)
    slow = Slow(made, monkeypatch)
    slow.allow(len(packed) // 2)
    await made.layer.read(0, 10)
    slow.allow(len(packed))
    await whole(made)
    assert made.layer.status()["memory_bytes"] > 4 * MIB


async def test_zeroes_at_the_start_are_answered_too(chain, monkeypatch):
    image = bytes(5 * MIB) + prose(4 * MIB)
    packed = xz(image)
    made = await chain(packed)
    slow = Slow(made, monkeypatch)
    slow.allow(64 << 10)
    assert await made.layer.read(MIB, 10) == bytes(10)


async def test_what_stands_after_a_stored_chunk_waits_for_the_check(chain, monkeypatch):
    image = prose(2 * MIB) + noise(MIB) + prose(4 * MIB, 2)
    packed = xz(image)
    made = await chain(packed)
    slow = Slow(made, monkeypatch)
    slow.allow(len(packed) - 8192)
    assert await made.layer.read(MIB, 10) == image[MIB:][:10]
    late = [asyncio.create_task(made.layer.read(at, 10)) for at in (5 * MIB // 2, 4 * MIB)]
    for _ in range(20):
        await settle()
    assert not any(reader.done() for reader in late)
    slow.allow(8192)
    assert await late[0] == image[5 * MIB // 2 :][:10]
    assert await late[1] == image[4 * MIB :][:10]


@pytest.mark.parametrize("where", [0.1, 0.6, 0.95])
async def test_a_flipped_bit_is_eio_and_never_wrong_bytes(chain, where, caplog):
    image = prose(3 * MIB) + noise(MIB // 4) + prose(MIB, 2)
    for seed in range(6):
        packed = bytearray(xz(image))
        packed[int(len(packed) * where) + random.Random(seed).randrange(4096)] ^= 1 << seed
        made = await chain(packed)
        for begin in range(0, len(image), 200_000):
            try:
                got = await made.layer.read(begin, min(200_000, len(image) - begin))
            except CorruptDataError:
                continue
            assert got == image[begin : begin + 200_000]
        with pytest.raises(CorruptDataError):
            await made.layer.read(0, 10)
    assert ("were answered before its check" in caplog.text) == (where > 0.5)


async def test_a_block_that_failed_its_check_is_not_served_in_parts_again(chain, monkeypatch):
    image = prose(4 * MIB)
    packed = bytearray(xz(image))
    packed[-2000] ^= 1
    made = await chain(packed)
    assert await made.layer.read(0, 10) == image[:10]
    with pytest.raises(CorruptDataError):
        await made.layer.read(len(image) - 10, 10)
    made.layer._blocks._corrupt.forget()
    slow = Slow(made, monkeypatch)
    slow.allow(len(packed) // 2)
    reader = asyncio.create_task(made.layer.read(0, 10))
    for _ in range(20):
        await settle()
    assert not reader.done()
    slow.allow(len(packed))
    with pytest.raises(CorruptDataError):
        await reader


async def test_readers_in_all_places_share_one_fetch_and_one_decoder(chain):
    image = prose(4 * MIB)
    made = await chain(xz(image))
    places = [random.Random(n).randrange(len(image) - 100) for n in range(64)]
    answers = await asyncio.gather(*(made.layer.read(at, 100) for at in places))
    assert answers == [image[at : at + 100] for at in places]
    await whole(made)
    assert made.layer.status()["packed_reads"] == 1
    assert made.layer.status()["blocks_decoded"] == 1


async def test_who_leaves_before_anything_came_ends_the_load(chain, monkeypatch):
    made = await chain(xz(prose(4 * MIB)))
    slow = Slow(made, monkeypatch)
    reader = asyncio.create_task(made.layer.read(MIB, 10))
    await turns()
    reader.cancel()
    await settle()
    assert slow.given == 0
    assert not made.layer._blocks._short.memory.in_flight


async def test_who_comes_while_an_abandoned_load_is_ending_is_served(chain, monkeypatch):
    image = prose(4 * MIB)
    packed = xz(image)
    made = await chain(packed)
    slow = Slow(made, monkeypatch)
    first = asyncio.create_task(made.layer.read(3 * MIB, 10))
    slow.allow(len(packed) // 4)
    await settle()
    first.cancel()
    second = asyncio.create_task(made.layer.read(MIB, 10))
    await settle()
    slow.allow(2 * len(packed))
    assert await second == image[MIB:][:10]


async def test_all_of_it_is_right_in_any_step(chain):
    image = prose(MIB) + bytes(MIB) + noise(MIB) + prose(MIB, 3)
    made = await chain(xz(image, "--block-size=2MiB"))
    assert await read_all(made.layer, 70_000) == image
