"""The xz layer over real xz files: every byte right or EIO, each block fetched and decoded once."""

import asyncio
import logging
import lzma
import os
import struct
import threading
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbdserve.device import BlockSize, Capability
from nbdserve.errors import CorruptDataError, DeviceError, NotSupportedError, SourceUnavailableError
from nbdserve.extents import DATA, ZERO_HOLE
from nbdserve.formats.xz import Check
from nbdserve.formats.xzindex import TAIL
from nbdserve.layers.xz import XzLayer
from nbdserve.threads import cpu_pool
from nbdserve.xzengine import corrupt
from xz_chain import Chain, chains, noise, read_all, settle, turns, xz

WORDS = struct.pack(">65536Q", *range(0, 65536 * 8, 8))


@pytest.fixture
async def chain():
    async with chains() as made:
        yield made


@pytest.mark.parametrize("block", ["4KiB", "12KiB", "64KiB", "1MiB"])
@pytest.mark.parametrize("step", [1000, 4096, 100_001, 1 << 20])
async def test_an_image_in_blocks_is_read_whole(chain, block, step):
    data = WORDS[:-5]
    made = await chain(xz(data, f"--block-size={block}"))
    assert made.layer.info.size == len(data)
    assert await read_all(made.layer, step) == data


@pytest.mark.parametrize("check", ["none", "crc32", "crc64", "sha256"])
async def test_every_check_is_served(chain, check):
    made = await chain(xz(WORDS[:9999], f"--check={check}", "--block-size=4KiB"))
    assert await read_all(made.layer, 5000) == WORDS[:9999]


async def test_filters_are_served(chain):
    code = b"\xe8\x10\0\0\0\x90\x90" * 3000
    packed = xz(code, "--x86", "--lzma2=preset=0") + xz(WORDS, "--delta=dist=8", "--lzma2")
    made = await chain(packed)
    assert await read_all(made.layer, 65536) == code + WORDS


async def test_streams_empty_streams_and_padding_are_served(chain):
    empty = lzma.compress(b"")
    packed = empty + xz(WORDS[:5000], "--block-size=4KiB") + bytes(4) + empty + bytes(400)
    packed += xz(WORDS[5000:9001], "--check=sha256") + empty + bytes(12)
    made = await chain(packed)
    assert await read_all(made.layer, 777) == WORDS[:9001]
    layout = made.layer.layout
    assert (layout.streams, layout.blocks, layout.padding) == (5, 3, 416)
    assert layout.checks == (Check.CRC64, Check.SHA256)


async def test_an_empty_image_has_size_0(chain):
    made = await chain(lzma.compress(b""))
    assert made.layer.info.size == 0
    assert await made.layer.read(0, 0) == b""


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
async def test_any_ranges_at_once_are_right(data):
    sizes = data.draw(st.lists(st.integers(0, 5000), max_size=6))
    parts = [noise(size, seed) if seed % 3 else bytes(size) for seed, size in enumerate(sizes)]
    packed = b"".join(lzma.compress(part, preset=0) + bytes(4 * n) for n, part in enumerate(parts))
    image = b"".join(parts)
    if not packed:
        return
    made = await Chain(packed, cache=data.draw(st.sampled_from([0, 6000, 1 << 20]))).open()
    offsets = st.integers(0, len(image))
    ranges = data.draw(st.lists(st.tuples(offsets, st.integers(0, 9000)), max_size=10))
    answers = await asyncio.gather(
        *(made.layer.read(at, min(length, len(image) - at)) for at, length in ranges)
    )
    await made.layer.close()
    assert answers == [image[at : at + length] for at, length in ranges]


async def test_the_index_is_one_read_and_each_block_is_one_exact_range(chain):
    image = noise(1 << 20)
    packed = xz(image, "--block-size=64KiB")
    made = await chain(packed)
    assert made.opening == [(len(packed) - TAIL, TAIL)]
    assert await read_all(made.layer, 4096) == image
    assert len(made.fetched) == 16
    ends = [offset + length for offset, length in sorted(made.fetched)]
    assert [offset for offset, _ in sorted(made.fetched)] == [0, *ends[:-1]]
    assert sum(length for _, length in made.fetched) < len(packed)


async def test_four_readers_in_order_fetch_each_block_once(chain):
    """As nbdcopy does: each in its part, many requests in flight, room for few blocks."""
    image = noise(4 << 20)
    made = await chain(xz(image, "--block-size=128KiB"), cache=6 << 17)

    async def copy(part):
        got = []
        for at in range(part << 20, (part + 1) << 20, 64 << 10):
            window = (made.layer.read(at + n, 16 << 10) for n in range(0, 64 << 10, 16 << 10))
            got.extend(await asyncio.gather(*window))
        return b"".join(got)

    assert b"".join(await asyncio.gather(*map(copy, range(4)))) == image
    assert len(made.fetched) == len(set(made.fetched)) == 32


async def test_a_file_of_whole_blocks_only_is_read_by_those(monkeypatch):
    image = noise(60_000)
    packed = xz(image, "--block-size=20000") + lzma.compress(b"") + bytes(8)
    made = Chain(packed)
    info = replace(made.source.info, block_size=BlockSize(4096, 4096, 32 << 20))
    monkeypatch.setattr(made.source, "_info", info)
    await made.open()
    assert await read_all(made.layer, 7000) == image
    for offset, length in made.opening + made.fetched:
        assert offset % 4096 == 0
        assert length % 4096 == 0 or offset + length == len(packed)
    await made.layer.close()


async def test_tiny_neighbours_come_by_one_fetch(chain):
    image = bytes(1 << 20) + noise(100)
    packed = xz(image, "--block-size=16KiB")
    made = await chain(packed)
    assert made.layer.layout.blocks == 65
    assert await read_all(made.layer, 16384) == image
    assert len(made.fetched) == 1


async def test_many_readers_of_a_cold_block_cost_one_fetch(chain):
    image = noise(1 << 20)
    made = await chain(xz(image, "--block-size=256KiB"))
    gate = made.faults.hold("read")
    readers = [asyncio.create_task(made.layer.read(300_000 + n, 100)) for n in range(64)]
    await gate.waiting()
    await settle()
    assert gate.held == 1
    gate.release()
    assert await asyncio.gather(*readers) == [image[300_000 + n :][:100] for n in range(64)]
    assert len(made.fetched) == 1


async def test_what_is_decoded_is_answered_without_waiting(chain):
    image = noise(100_000) + bytes(100_000)
    made = await chain(xz(image, "--block-size=50000"))
    view = memoryview(bytearray(120_000))
    assert not made.layer.read_into_nowait(40_000, view)
    await made.layer.read_into(40_000, view)
    view[:] = bytes(len(view))
    assert made.layer.read_into_nowait(40_000, view)
    assert view == image[40_000:160_000]
    assert made.layer.read_into_nowait(0, view[:0])


async def test_a_read_half_of_which_is_cold_waits(chain):
    made = await chain(xz(noise(100_000), "--block-size=50000"))
    await made.layer.read(0, 10)
    assert not made.layer.read_into_nowait(49_000, memoryview(bytearray(2000)))


async def test_a_cancelled_reader_does_not_end_the_fetch_of_another(chain):
    image = noise(100_000)
    made = await chain(xz(image))
    gate = made.faults.hold("read")
    first, second = (asyncio.create_task(made.layer.read(n, 10)) for n in range(2))
    await gate.waiting()
    await settle()
    first.cancel()
    await settle()
    gate.release()
    assert await second == image[1:11]
    assert len(made.fetched) == 1


async def test_a_fetch_that_nobody_waits_for_is_ended_and_can_be_had_again(chain):
    image = noise(100_000)
    made = await chain(xz(image))
    gate = made.faults.hold("read")
    reader = asyncio.create_task(made.layer.read(0, 10))
    await gate.waiting()
    reader.cancel()
    await settle()
    assert gate.held == 0
    made.faults.heal()
    assert await made.layer.read(5, 10) == image[5:15]


async def test_a_decoder_that_nobody_waits_for_gives_its_memory_back(chain):
    """The cores are kept busy, so that the decoder is still waiting for one."""
    image = noise(100_000)
    made = await chain(xz(image))
    go = threading.Event()
    loop = asyncio.get_running_loop()
    busy = [loop.run_in_executor(cpu_pool(), go.wait) for _ in range(os.cpu_count() or 1)]
    reader = asyncio.create_task(made.layer.read(0, 10))
    await turns()
    assert made.fetched
    assert made.layer._blocks._short.memory._reserved > 0
    reader.cancel()
    await turns()
    assert made.layer._blocks._short.memory._reserved == 0
    go.set()
    await asyncio.gather(*busy)
    assert await made.layer.read(5, 10) == image[5:15]


async def test_a_failure_of_the_source_is_for_those_reads_and_not_remembered(chain):
    image = noise(200_000)
    made = await chain(xz(image, "--block-size=50000"))
    made.faults.fail("read", error=SourceUnavailableError("http: the mirror is away"), times=1)
    with pytest.raises(SourceUnavailableError, match="mirror is away"):
        await made.layer.read(0, 10)
    assert await made.layer.read(0, 10) == image[:10]


def damaged(image, number, *options):
    """Pack an image and flip one bit within a block's data."""
    packed = bytearray(xz(image, *options))
    made = Chain(packed)
    asyncio.run(made.layer.open(read_only=True))
    block = made.layer._index.block(number)
    packed[block.packed_offset + block.unpadded_size // 2] ^= 1
    return packed


def test_a_corrupt_block_is_eio_for_its_own_reads_only(caplog):
    image = noise(400_000)
    packed = damaged(image, 3, "--block-size=50000")

    async def check():
        made = await Chain(packed).open()
        for number in range(8):
            if number == 3:
                with pytest.raises(CorruptDataError, match=r"block 3 at byte \d+ .* corrupt"):
                    await made.layer.read(150_000, 10)
            else:
                got = await made.layer.read(number * 50_000, 50_000)
                assert got == image[number * 50_000 :][:50_000]
        with pytest.raises(CorruptDataError):
            await made.layer.read(100_000, 200_000)
        await made.layer.close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(check())
    assert [record.message.count("corrupt") for record in caplog.records] == [1]


def test_a_corrupt_block_is_looked_at_again_after_a_while_only(monkeypatch):
    packed = damaged(noise(100_000), 0, "--block-size=50000")

    async def read(made):
        with pytest.raises(CorruptDataError, match="block 0"):
            await made.layer.read(0, 10)

    async def check():
        made = await Chain(packed).open()
        for _ in range(5):
            await read(made)
        assert len(made.fetched) == 1
        monkeypatch.setattr(corrupt, "BAD_SECONDS", -1.0)
        made.layer._blocks._corrupt.forget()
        for _ in range(3):
            await read(made)
        assert len(made.fetched) == 4
        await made.layer.close()

    asyncio.run(check())


async def test_every_flipped_byte_is_eio_or_harmless_never_wrong():
    parts = [b"locatable bytes of the first stream " * 3, bytes(700), noise(90)]
    whole = bytearray(
        lzma.compress(parts[0], check=lzma.CHECK_CRC32)
        + bytes(8)
        + lzma.compress(parts[1], check=lzma.CHECK_SHA256)
        + lzma.compress(b"")
        + lzma.compress(parts[2], check=lzma.CHECK_CRC64)
    )
    image = b"".join(parts)
    refused = wrong = 0
    for at in range(len(whole)):
        for flip in (0x01, 0x80, 0xFF):
            packed = bytearray(whole)
            packed[at] ^= flip
            made = Chain(packed)
            try:
                await made.layer.open(read_only=True)
            except DeviceError:
                refused += 1
                continue
            for begin in range(0, made.layer.info.size, 50):
                try:
                    got = await made.layer.read(begin, min(50, made.layer.info.size - begin))
                except DeviceError:
                    refused += 1
                else:
                    wrong += got != image[begin : begin + 50]
            await made.layer.close()
    assert wrong == 0
    assert refused > 3 * len(whole)


async def test_a_file_cut_anywhere_is_refused_at_opening(chain):
    packed = xz(WORDS[:5000], "--block-size=1KiB")
    for end in range(len(packed)):
        with pytest.raises(CorruptDataError, match=r"^xz: [^\n]+$"):
            await chain(packed[:end])


async def test_a_block_over_max_block_is_refused_with_the_remedy(chain):
    with pytest.raises(NotSupportedError, match=r"nbdctl pack FILE NEW\.xz --block-size 16M"):
        await chain(xz(bytes(3 << 20)), max_block=2 << 20)


async def test_large_blocks_are_warned_of_at_opening(chain, caplog):
    packed = xz(bytes(65 << 20))
    with caplog.at_level(logging.WARNING):
        made = await chain(packed)
    assert ["--block-size 16M" in record.message for record in caplog.records] == [True]
    assert made.layer.layout.largest_block == 65 << 20


async def test_a_block_larger_than_the_cache_is_decoded_once(chain):
    image = noise(300_000)
    made = await chain(xz(image), cache=1000)
    assert await read_all(made.layer, 10_000) == image
    assert len(made.fetched) == 1


async def test_a_small_memlimit_is_an_error_that_names_it(chain):
    made = await chain(lzma.compress(noise(1000), preset=9), memlimit=1 << 20)
    with pytest.raises(DeviceError, match="raise memlimit"):
        await made.layer.read(0, 10)


async def test_blocks_of_zeroes_become_holes_once_they_were_read(chain):
    image = noise(50_000) + bytes(100_000) + noise(50_000)
    made = await chain(xz(image, "--block-size=50000"))
    assert await made.layer.extents(0, 200_000) == [(200_000, DATA)]
    await made.layer.read(0, 200_000)
    assert await made.layer.extents(10, 150_000) == [
        (49_990, DATA), (100_000, ZERO_HOLE), (10, DATA),
    ]  # fmt: skip


async def test_known_zeroes_cost_no_second_decode(chain):
    image = bytes(400_000) + noise(400_000)
    made = await chain(xz(image, "--block-size=50000"), cache=1)
    await read_all(made.layer, 50_000)
    view = memoryview(bytearray(b"x" * 400_000))
    assert made.layer.read_into_nowait(0, view)
    assert view == bytes(400_000)


async def test_cache_loads_the_blocks_of_a_range(chain):
    image = noise(400_000)
    made = await chain(xz(image, "--block-size=50000"))
    await made.layer.cache(60_000, 100_000)
    assert len(made.fetched) == 3
    assert made.layer.read_into_nowait(50_000, memoryview(bytearray(150_000)))


async def test_cache_of_the_whole_image_loads_no_more_than_fits(chain):
    made = await chain(xz(noise(1 << 20), "--block-size=50000"), cache=200_000)
    await made.layer.cache(0, 1 << 20)
    assert len(made.fetched) <= 5


async def test_a_reader_in_order_gets_the_next_block_before_it_asks(chain, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    image = noise(1 << 20)
    made = await chain(xz(image, "--block-size=64KiB"))
    for number in range(3):
        await made.layer.read(number << 16, 100)
    await settle()
    assert len(made.fetched) > 3
    gate = made.faults.hold("read")
    assert await made.layer.read(3 << 16, 100) == image[3 << 16 :][:100], "it was there"
    gate.release()


async def test_a_random_reader_gets_nothing_ahead(chain):
    made = await chain(xz(noise(1 << 20), "--block-size=64KiB"))
    for number in (3, 9, 1, 12, 4, 8, 13):
        await made.layer.read(number << 16, 100)
    await settle()
    assert len(made.fetched) == 7


async def test_it_is_told_as_an_immutable_device(chain):
    made = await chain(xz(WORDS))
    assert made.layer.info.can == Capability.CACHE | Capability.EXTENTS
    assert made.layer.info.block_size == (1, 65536, 32 << 20)
    assert not XzLayer.writes_inner
