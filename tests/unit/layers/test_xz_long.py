"""Blocks too long to wait for: answered early, decoded once, never wrong, in bounded memory."""

import asyncio
import logging
import lzma
import os
import random
from dataclasses import replace

import pytest
from xz.common import create_xz_index_footer

from nbdserve.errors import CorruptDataError, DeviceError, NoSpaceError, SourceUnavailableError
from nbdserve.extents import DATA, ZERO_HOLE
from nbdserve.xzengine import blocks, longblocks, spill
from xz_chain import Slow, chains, index_of, noise, prose, read_all, settle, stored, xz

MIB = 1 << 20


@pytest.fixture
async def chain():
    async with chains() as made:
        yield made


async def test_a_single_block_is_read_whole_and_fetched_once(chain):
    image = prose(3 * MIB)
    made = await chain(xz(image), early=MIB)
    assert await read_all(made.layer, 100_000) == image
    await settle()
    assert made.layer.status()["packed_reads"] == 1
    assert made.layer.status()["blocks_decoded"] == 1
    assert made.layer.status()["memory_bytes"] == 0, "a long block costs no memory"


async def test_what_is_decoded_is_sent_from_the_file_at_once(chain):
    image = prose(2 * MIB)
    made = await chain(xz(image), early=MIB)
    await read_all(made.layer, MIB)
    view = memoryview(bytearray(5000))
    assert made.layer.read_into_nowait(1_000_000, view)
    assert view == image[1_000_000:][:5000]
    found = made.layer.file_range(1_000_000, 5000)
    assert os.pread(found.fd, 5000, found.offset) == image[1_000_000:][:5000]


async def test_a_read_is_answered_long_before_the_block_has_come(chain, monkeypatch):
    image = prose(4 * MIB)
    packed = xz(image)
    made = await chain(packed, early=MIB)
    slow = Slow(made, monkeypatch)
    slow.allow(len(packed) // 2)
    assert await made.layer.read(MIB, 5000) == image[MIB:][:5000]
    assert not made.layer.read_into_nowait(3 * MIB, memoryview(bytearray(10)))
    slow.allow(len(packed))
    assert await made.layer.read(3 * MIB, 10) == image[3 * MIB :][:10]
    assert made.layer.status()["packed_reads"] == 1


async def test_a_short_block_is_not_answered_before_it_is_verified_if_told_so(chain, monkeypatch):
    image = prose(MIB)
    packed = xz(image)
    made = await chain(packed, early=MIB, answer="block")
    slow = Slow(made, monkeypatch)
    slow.allow(len(packed) - 8192)
    reader = asyncio.create_task(made.layer.read(0, 10))
    await settle()
    assert not reader.done()
    slow.allow(8192)
    assert await reader == image[:10]


async def test_readers_of_all_places_share_one_decoder(chain):
    image = prose(4 * MIB)
    made = await chain(xz(image), early=MIB)
    places = [random.Random(n).randrange(len(image) - 100) for n in range(64)]
    answers = await asyncio.gather(*(made.layer.read(at, 100) for at in places))
    assert answers == [image[at : at + 100] for at in places]
    assert made.layer.status()["packed_reads"] == 1


async def test_a_cancelled_reader_does_not_end_it_for_the_others(chain, monkeypatch):
    image = prose(2 * MIB)
    packed = xz(image)
    made = await chain(packed, early=MIB)
    slow = Slow(made, monkeypatch)
    first = asyncio.create_task(made.layer.read(MIB, 10))
    second = asyncio.create_task(made.layer.read(2 * MIB - 10, 10))
    await settle()
    first.cancel()
    await settle()
    slow.allow(len(packed))
    assert await second == image[-10:]


@pytest.mark.parametrize("where", [0.6, 0.95])
async def test_a_flipped_bit_is_eio_and_never_wrong_bytes(chain, where, caplog):
    """Coded chunks: what comes out before the damage is right, what comes after never comes."""
    image = prose(4 * MIB)
    for seed in range(6):
        packed = bytearray(xz(image))
        at = int(len(packed) * where) + random.Random(seed).randrange(4096)
        packed[at] ^= 1 << seed
        made = await chain(packed, early=MIB)
        failed = False
        for begin in range(0, len(image), 200_000):
            try:
                got = await made.layer.read(begin, min(200_000, len(image) - begin))
            except CorruptDataError:
                failed = True
            else:
                assert got == image[begin : begin + 200_000]
        assert failed
        with pytest.raises(CorruptDataError):
            await made.layer.read(0, 10)
    assert "were answered before its check" in caplog.text


async def test_a_block_that_failed_is_not_trusted_early_again(chain, monkeypatch):
    image = noise(4 * MIB)  # stored chunks, of which only the block's check can tell
    packed = bytearray(xz(image))
    packed[len(packed) - 3 * MIB] ^= 1
    made = await chain(packed, early=MIB)
    await made.layer.read(0, 10)
    with pytest.raises(CorruptDataError):
        await made.layer.read(len(image) - 10, 10)
    made.layer._blocks._corrupt.forget()
    with pytest.raises(CorruptDataError):
        await made.layer.read(0, 10)


async def test_what_was_damaged_on_its_way_leaves_nothing_behind(chain, monkeypatch):
    """Zeroes are not stored; so what an attempt left where they belong has to be overwritten."""
    image = prose(MIB) + bytes(MIB) + prose(MIB)
    packed = stored(image)
    made = await chain(packed, early=MIB)
    with monkeypatch.context() as patch:
        patch.setattr(made.faults, "stream", damaging(made.faults.stream, len(packed) // 2))
        with pytest.raises(CorruptDataError):
            await made.layer.read(3 * MIB - 10, 10)
    made.layer._blocks._corrupt.forget()
    assert await read_all(made.layer, MIB) == image
    await settle()
    assert await read_all(made.layer, MIB) == image
    assert made.layer.status()["spilled_bytes"] <= 3 * MIB, "it lies there once"


def damaging(stream, where):
    """Give a stream whose byte at `where` is another one."""

    async def damaged(offset, length):
        at = 0
        async for given in stream(offset, length):
            piece = bytearray(given)
            if at <= where < at + len(piece):
                piece[where - at] ^= 0x55
            at += len(piece)
            yield piece

    return damaged


async def test_a_block_taken_up_again_from_its_start_takes_its_room_once(chain, monkeypatch):
    monkeypatch.setattr(longblocks, "_DECODERS", 1)
    monkeypatch.setattr(longblocks, "_FEWEST", 1)
    image = prose(6 * MIB)
    made = await chain(xz(image, "--block-size=2MiB"), early=MIB, spill=6 * MIB)
    for at in (0, 2 * MIB, 4 * MIB, MIB, 3 * MIB, 5 * MIB):
        assert await made.layer.read(at, 50) == image[at : at + 50]
    assert await read_all(made.layer, MIB) == image
    assert made.layer._blocks._spill.has_room


async def test_a_fetch_that_fails_goes_on_where_it_was(chain, monkeypatch):
    image = prose(2 * MIB)
    packed = xz(image)
    made = await chain(packed, early=MIB)
    slow = Slow(made, monkeypatch)
    slow.allow(len(packed) // 2)
    assert await made.layer.read(0, 100) == image[:100]
    inner, slow.inner = slow.inner, broken
    reader = asyncio.create_task(made.layer.read(len(image) - 10, 10))
    await settle()
    assert not reader.done(), "the stream under way is not concerned"
    slow.inner = inner
    slow.allow(len(packed))
    assert await reader == image[-10:]


async def broken(offset, length):
    raise SourceUnavailableError("http: the mirror is away")
    yield b""


async def test_a_fetch_that_fails_is_told_to_who_waits_and_tried_for_the_next(chain, monkeypatch):
    image = prose(2 * MIB)
    made = await chain(xz(image), early=MIB)
    stream = made.faults.stream
    monkeypatch.setattr(made.faults, "stream", broken)
    for _ in range(2):
        with pytest.raises(SourceUnavailableError, match="mirror is away"):
            await made.layer.read(10, 10)
    monkeypatch.setattr(made.faults, "stream", stream)
    assert await made.layer.read(10, 10) == image[10:20]


@pytest.mark.parametrize("where", ["stream", "spill"])
async def test_whatever_else_goes_wrong_the_block_is_not_taken_for_whole(chain, monkeypatch, where):
    image = prose(2 * MIB)
    made = await chain(xz(image), early=MIB)
    if where == "stream":
        made.faults.fail("read", error=RuntimeError("a bug of a plugin"))
    else:
        monkeypatch.setattr(spill.Spill, "write_in", no_memory)
    with pytest.raises((RuntimeError, MemoryError)):
        await made.layer.read(10, 10)
    monkeypatch.undo()
    assert await made.layer.read(10, 10) == image[10:20]


def no_memory(*_):
    raise MemoryError


async def test_zeroes_within_a_long_block_become_holes_as_they_are_found(chain):
    image = prose(MIB) + bytes(2 * MIB) + prose(MIB)
    made = await chain(xz(image), early=MIB)
    assert await made.layer.extents(0, 4 * MIB) == [(4 * MIB, DATA)]
    await made.layer.read(4 * MIB - 10, 10)
    await settle()
    assert await made.layer.extents(0, 4 * MIB) == [
        (MIB, DATA), (2 * MIB, ZERO_HOLE), (MIB, DATA),
    ]  # fmt: skip
    assert made.layer.status()["spilled_bytes"] == 2 * MIB, "zeroes take no disk"


async def test_zeroes_within_short_blocks_become_holes_too(chain):
    image = prose(MIB) + bytes(MIB) + prose(MIB)
    made = await chain(xz(image, "--block-size=1536KiB"))
    await read_all(made.layer, MIB)
    assert await made.layer.extents(0, 3 * MIB) == [(MIB, DATA), (MIB, ZERO_HOLE), (MIB, DATA)]


@pytest.mark.parametrize("early", [MIB, 8 * MIB])
async def test_zeroes_at_the_end_are_read_from_disk_too(chain, early):
    image = prose(2 * MIB) + bytes(2 * MIB)
    made = await chain(xz(image, "--block-size=2300KiB"), early=early, cache=1)
    for _ in range(2):
        assert await read_all(made.layer, MIB) == image
        await settle()


async def test_thin_blocks_are_known_to_be_holes_before_they_are_read(chain):
    image = prose(MIB) + bytes(8 * MIB) + prose(MIB)
    made = await chain(xz(image, "--block-size=1MiB"))
    found = await made.layer.extents(0, 10 * MIB)
    assert found == [(MIB, DATA), (8 * MIB, ZERO_HOLE), (MIB, DATA)]
    assert made.layer.status()["blocks_decoded"] == 1, "one stands for all of them"
    assert made.layer.status()["blocks_same_as_another"] == 7
    assert len(made.fetched) == 1
    await made.layer.extents(0, 10 * MIB)
    assert made.layer.status()["blocks_same_as_another"] == 7, "each is looked at once"


async def test_thin_blocks_larger_than_memory_are_served_from_disk(chain, monkeypatch):
    monkeypatch.setattr(blocks, "_MOST_IN_MEMORY", 2 * MIB)
    made = await chain(xz(bytes(8 * MIB), "--block-size=4MiB"), early=MIB, cache=MIB)
    assert await made.layer.extents(0, 8 * MIB) == [(8 * MIB, DATA)]
    assert made.fetched == [], "a question does not wait for that much"
    assert await read_all(made.layer, MIB) == bytes(8 * MIB)
    assert made.layer.status()["memory_bytes"] == 0
    await settle()
    assert await made.layer.extents(0, 8 * MIB) == [(8 * MIB, ZERO_HOLE)]


async def test_blocks_of_the_same_packed_bytes_are_decoded_once(chain):
    part = prose(MIB)
    made = await chain(lzma.compress(part, preset=0) * 4)
    assert await read_all(made.layer, 300_000) == part * 4
    assert made.layer.status()["blocks_decoded"] == 1
    assert made.layer.status()["blocks_same_as_another"] == 3


async def test_the_same_holds_for_those_that_fell_out_of_memory(chain):
    part, other = prose(MIB), prose(MIB, 2)
    packed = b"".join(lzma.compress(one, preset=0) for one in (part, other, other[::-1], part))
    made = await chain(packed, cache=MIB + 300_000)
    assert await read_all(made.layer, 300_000) == part + other + other[::-1] + part
    assert made.layer.status()["blocks_decoded"] == 3
    assert await made.layer.read(3 * MIB + 5, 100) == part[5:105]


async def test_one_does_not_wait_for_the_same_that_waits_for_room(chain):
    part, other = prose(MIB), prose(MIB, 2)
    packed = b"".join(lzma.compress(one, preset=0) for one in (part, other, part))
    made = await chain(packed, cache=0, spill=0)
    await made.layer.read(0, 10)
    await made.layer.read(MIB, 10)  # the first falls out
    gate = made.faults.hold("read")
    readers = [asyncio.create_task(made.layer.read(at, 10)) for at in (2 * MIB, 0)]
    await gate.waiting()
    gate.release()
    async with asyncio.timeout(30):
        assert await asyncio.gather(*readers) == [part[:10], part[:10]]


@pytest.mark.parametrize("cache", [None, 1])
async def test_one_whose_size_in_the_index_is_a_lie_is_the_same_as_none(chain, cache):
    part = prose(MIB)
    packed = lzma.compress(part, preset=0)
    block = index_of(packed).block(0)
    index = create_xz_index_footer(block.check, [(block.unpadded_size, MIB + 5)] * 2)
    lying = packed[:12] + packed[12 : block.fetch_length] * 2 + index
    made = await chain(packed * 2 + lying, cache=cache)
    assert await made.layer.read(0, MIB) == part
    await settle()
    for at in (2 * MIB, 3 * MIB - 5, 3 * MIB, 4 * MIB):
        with pytest.raises(CorruptDataError):
            await made.layer.read(at, 10)


async def test_what_falls_out_of_memory_is_not_decoded_again(chain):
    image = prose(8 * MIB)
    made = await chain(xz(image, "--block-size=1MiB"), cache=2 * MIB)
    for _ in range(2):
        assert await read_all(made.layer, 500_000) == image
        await settle()
    assert made.layer.status()["blocks_decoded"] == 8
    assert made.layer.status()["memory_bytes"] <= 2 * MIB
    assert made.layer.status()["spilled_bytes"] >= 6 * MIB


async def test_without_spill_it_is_decoded_again(chain):
    image = prose(4 * MIB)
    made = await chain(xz(image, "--block-size=1MiB"), cache=2 * MIB, spill=0)
    for _ in range(2):
        assert await read_all(made.layer, 500_000) == image
    assert made.layer.status()["blocks_decoded"] == 8
    assert made.layer.status()["spilled_bytes"] == 0


async def test_a_spill_that_is_full_is_one_warning_and_no_error(chain, caplog):
    image = prose(8 * MIB)
    made = await chain(xz(image, "--block-size=1MiB"), cache=2 * MIB, spill=3 * MIB)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert await read_all(made.layer, 500_000) == image
            await settle()
    assert caplog.text.count("keeps no more decoded data on disk") == 1
    assert made.layer.status()["spilled_bytes"] <= 3 * MIB


async def test_a_long_block_with_no_room_on_disk_is_decoded_in_memory(chain, caplog):
    image = prose(4 * MIB)
    made = await chain(xz(image), early=MIB, spill=2 * MIB)
    assert await made.layer.read(3 * MIB, 1000) == image[3 * MIB :][:1000]
    assert await read_all(made.layer, MIB) == image


async def test_a_hint_is_served_in_memory_too_when_the_disk_is_full(chain):
    image = prose(4 * MIB)
    made = await chain(xz(image), early=MIB, spill=2 * MIB)
    await made.layer.cache(0, 4 * MIB)
    assert made.layer.read_into_nowait(3 * MIB, memoryview(bytearray(10)))


async def test_a_source_that_says_it_is_full_is_an_error_told_once(chain):
    image = prose(2 * MIB)
    made = await chain(xz(image), early=MIB)
    made.faults.fail("read", error=NoSpaceError("its cache is full"), times=3)
    for _ in range(3):
        with pytest.raises(NoSpaceError, match="its cache is full"):
            await made.layer.read(0, 10)
    assert await made.layer.read(0, 10) == image[:10]


async def test_a_folder_that_is_not_there_costs_no_read(chain, tmp_path, caplog):
    image = prose(4 * MIB)
    made = await chain(xz(image), early=MIB, spill_dir=tmp_path / "none")
    with pytest.raises(DeviceError, match=r"none.*name another spill-dir="):
        await made.layer.read(0, 10)
    assert await chain(xz(image, "--block-size=1MiB"), cache=MIB, spill_dir=tmp_path / "none")


async def test_a_parked_job_gives_its_connection_back_and_is_taken_up_again(chain, monkeypatch):
    monkeypatch.setattr(longblocks, "_PARK", 0.0)
    monkeypatch.setattr(longblocks, "_WHOLE", 0)
    monkeypatch.setattr(longblocks, "_AHEAD", 0)
    monkeypatch.setattr(longblocks, "INTAKE", 4096)
    image = prose(16 * MIB)
    made = await chain(xz(image), early=MIB)
    assert await made.layer.read(MIB, 10) == image[MIB:][:10]
    await settle()
    assert made.layer.status()["packed_reads"] == 1
    assert await made.layer.read(15 * MIB, 10) == image[15 * MIB :][:10]
    assert made.layer.status()["packed_reads"] == 2
    assert made.layer.status()["blocks_decoded"] == 0, "its end was not asked for"


@pytest.mark.parametrize(("streams", "parked"), [(None, 2), (2, 1), (1, 0)])
async def test_few_jobs_are_parked_with_their_connections(chain, monkeypatch, streams, parked):
    """With all connections of a source parked, who asks for another block would wait for one."""
    monkeypatch.setattr(longblocks, "INTAKE", 4096)
    image = prose(24 * MIB)
    made = await chain(xz(image, "--block-size=4MiB"), early=MIB)
    monkeypatch.setattr(made.source, "_info", replace(made.source.info, streams=streams))
    inner, connections = made.faults.stream, []

    async def stream(offset, length):
        connections.append(offset)
        try:
            async for piece in inner(offset, length):
                for at in range(0, len(piece), 4096):
                    yield piece[at : at + 4096]
        finally:
            connections.remove(offset)

    monkeypatch.setattr(made.faults, "stream", stream)
    gate = made.faults.hold("read", offset=made.layer._index.block(0).packed_offset)
    waiting = asyncio.create_task(made.layer.read(0, 10))
    await gate.waiting()
    for number in range(1, 6):
        assert await made.layer.read(number * 4 * MIB, 10) == image[number * 4 * MIB :][:10]
    await settle()
    assert len(connections) == 1 + parked
    gate.release()
    assert await waiting == image[:10]


async def test_a_job_goes_on_to_the_end_while_nobody_waits(chain):
    image = prose(4 * MIB)
    made = await chain(xz(image), early=MIB)
    await made.layer.read(0, 10)
    while not made.layer.status()["blocks_decoded"]:
        await settle()
    assert made.layer.read_into_nowait(4 * MIB - 100, memoryview(bytearray(100)))


async def test_more_jobs_than_memory_for_decoders_take_turns(chain, monkeypatch):
    monkeypatch.setattr(longblocks, "_DECODERS", 1)
    monkeypatch.setattr(longblocks, "_FEWEST", 1)
    image = prose(16 * MIB)
    made = await chain(xz(image, "--block-size=2MiB"), early=MIB)
    places = random.Random(3).sample(range(0, 16 * MIB, 500_000), 20)
    answers = await asyncio.gather(*(made.layer.read(at, 50) for at in places))
    assert answers == [image[at : at + 50] for at in places]


async def test_decoders_that_begin_at_once_are_no_more_than_memory_allows(chain, monkeypatch):
    monkeypatch.setattr(longblocks, "_DECODERS", 1)
    image = prose(12 * MIB)
    made = await chain(xz(image, "--block-size=2MiB"), early=MIB)
    gate = made.faults.hold("read")
    readers = [asyncio.create_task(made.layer.read(at * 2 * MIB, 50)) for at in range(6)]
    await gate.waiting(3)
    await settle()
    assert gate.held == 3
    gate.release()
    assert await asyncio.gather(*readers) == [image[at * 2 * MIB :][:50] for at in range(6)]


async def test_readers_that_give_up_displace_no_decoder(chain, monkeypatch):
    monkeypatch.setattr(longblocks, "_DECODERS", 1)
    monkeypatch.setattr(longblocks, "_FEWEST", 1)
    image = prose(8 * MIB)
    made = await chain(xz(image, "--block-size=2MiB"), early=MIB)
    gate = made.faults.hold("read")
    first = asyncio.create_task(made.layer.read(0, 50))
    await gate.waiting()
    others = [asyncio.create_task(made.layer.read(at * 2 * MIB, 50)) for at in (1, 2, 3)]
    await settle()
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    gate.release()
    assert await first == image[:50]
    await settle()
    assert len(made.fetched) == 1


@pytest.mark.parametrize(("early", "begun"), [(MIB, 2), (3 * MIB, 1)])
async def test_a_reader_in_order_has_the_next_block_begun_if_it_is_long(
    chain, monkeypatch, early, begun
):
    monkeypatch.setattr(longblocks, "_AHEAD", MIB)
    image = prose(6 * MIB)
    packed = xz(image[: 4 * MIB]) + xz(image[4 * MIB :])
    made = await chain(packed, early=early)
    reads = (made.layer.read(at, MIB // 4) for at in range(0, 4 * MIB, MIB // 4))
    await asyncio.gather(*reads)
    await settle()
    assert len(made.fetched) == begun


async def test_closing_ends_what_is_under_way(chain, monkeypatch):
    made = await chain(xz(prose(2 * MIB)), early=MIB)
    Slow(made, monkeypatch)
    reader = asyncio.create_task(made.layer.read(0, 10))
    await settle()
    await made.layer._blocks._long.close()
    with pytest.raises(SourceUnavailableError, match="being closed"):
        await reader


async def test_a_nearly_full_file_system_is_left_alone(chain, monkeypatch, caplog):
    monkeypatch.setattr(spill, "_LEAVE_FREE", 1 << 60)
    monkeypatch.setattr(spill, "_LEAVE_FRACTION", 1)
    image = prose(4 * MIB)
    made = await chain(xz(image, "--block-size=1MiB"), cache=MIB)
    assert await read_all(made.layer, MIB) == image
    await settle()
    assert made.layer.status()["spilled_bytes"] == 0
    assert "MiB left" in caplog.text


async def test_a_reader_in_order_that_skips_holes_is_read_ahead_for(chain, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    image = b"".join(prose(MIB, seed) + bytes(3 * MIB) for seed in range(6))
    made = await chain(xz(image, "--block-size=1MiB"))
    await made.layer.extents(0, len(image))
    before = len(made.fetched)
    for part in range(3):
        await made.layer.read(4 * MIB * part, 100)
    await settle()
    assert len(made.fetched) - before > 3, "the next block of data was fetched unasked"
