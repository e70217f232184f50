"""The cache on disk: what was read once is served from there, rightly, also after a restart."""

import asyncio
import logging
import os
import random
import threading
from contextlib import AsyncExitStack, aclosing

import pytest

from cache_chain import CHUNK, GROUP, SIZE, WORDS, Image, cached, flip, now, only
from nbdserve.cachestore.folder import Folder
from nbdserve.device import BlockSize, Capability, DeviceInfo
from nbdserve.errors import (
    ConfigError,
    DeviceError,
    NotSupportedError,
    ReadOnlyError,
    SourceUnavailableError,
)
from nbdserve.extents import DATA, ZERO_HOLE, Extent, coalesce
from nbdserve.formats.cachemap import BLOCK, RECORD
from nbdserve.layers.cache import CacheLayer
from nbdserve.layers.cacheparams import CacheParams

HOLEY = WORDS[: 8 * CHUNK] + bytes(20 * CHUNK) + WORDS[28 * CHUNK :]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


async def test_what_was_read_is_read_from_below_once(folder):
    async with cached(folder) as made:
        assert now(made.layer, 5000, 100) is None
        assert await made.layer.read(5000, 100) == WORDS[5000:5100]
        assert now(made.layer, CHUNK, CHUNK) == WORDS[CHUNK : 2 * CHUNK]
        assert made.reads == [(CHUNK, CHUNK)]


async def test_it_survives_a_restart_without_a_read_below(folder):
    async with cached(folder) as made:
        assert await made.everything() == WORDS
    async with cached(folder) as made:
        assert now(made.layer, 0, 1) is None, "not before it was verified"
        assert await made.everything() == WORDS
        assert now(made.layer, 0, SIZE) == WORDS
        assert made.reads == []


async def test_missing_neighbours_are_one_read(folder):
    async with cached(folder) as made:
        await made.layer.read(3 * CHUNK, 10)
        await made.everything()
        assert made.reads == [
            (3 * CHUNK, CHUNK),
            (0, 3 * CHUNK),
            (4 * CHUNK, SIZE - 4 * CHUNK),
        ]


async def test_the_file_has_the_bytes_at_the_images_own_offsets(folder):
    async with cached(folder) as made:
        await made.everything()
    assert only(folder, ".data").read_bytes() == WORDS


async def test_zeroes_are_remembered_and_take_no_room(folder):
    image = Image(HOLEY)
    async with cached(folder, image) as made:
        assert await made.everything() == HOLEY
    assert only(folder, ".data").stat().st_blocks * 512 == 20 * CHUNK
    async with cached(folder, image) as made:
        assert now(made.layer, 8 * CHUNK, 20 * CHUNK) == bytes(20 * CHUNK)
        assert await made.layer.extents(0, SIZE) == [
            Extent(8 * CHUNK, DATA), Extent(20 * CHUNK, ZERO_HOLE), Extent(SIZE - 28 * CHUNK, DATA),
        ]  # fmt: skip
        assert made.record.calls == []


async def test_the_extents_of_what_is_absent_are_those_beneath(folder):
    async with cached(folder, Image(HOLEY)) as made:
        await made.layer.read(9 * CHUNK, 1)
        assert await made.layer.extents(8 * CHUNK, 4 * CHUNK) == [
            Extent(CHUNK, DATA), Extent(CHUNK, ZERO_HOLE), Extent(2 * CHUNK, DATA),
        ]  # fmt: skip
        made.faults.fail("extents", error=SourceUnavailableError("away"), times=None)
        assert await made.layer.extents(10 * CHUNK, CHUNK) == [Extent(CHUNK, DATA)]


class Told(Image):
    """An image that tells of its zeroes."""

    async def extents(self, offset, length):
        found = [
            Extent(1, DATA if any(self.contents[at // 512 * 512 :][:512]) else ZERO_HOLE)
            for at in range(offset, offset + length)
        ]
        return coalesce(found)


async def test_zeroes_that_are_told_beneath_are_remembered(folder):
    contents = bytes(2 * CHUNK + 512) + WORDS[: 3 * CHUNK] + bytes(3 * CHUNK + 1024)
    image = Told(contents)
    wanted = [
        Extent(2 * CHUNK + 512, ZERO_HOLE), Extent(3 * CHUNK, DATA),
        Extent(3 * CHUNK + 1024, ZERO_HOLE),
    ]  # fmt: skip
    async with cached(folder, image) as made:
        assert await made.layer.extents(0, len(contents)) == wanted
        assert now(made.layer, 0, 2 * CHUNK) == bytes(2 * CHUNK)
        assert now(made.layer, 2 * CHUNK, 1) is None, "not all of it is zero"
        assert await made.everything() == contents
    async with cached(folder, image) as made:
        assert await made.layer.extents(0, 2 * CHUNK) == [Extent(2 * CHUNK, ZERO_HOLE)]
        assert await made.layer.extents(6 * CHUNK, 2 * CHUNK) == [Extent(2 * CHUNK, ZERO_HOLE)]
        assert now(made.layer, len(contents) - 600, 600) == bytes(600)
        assert made.record.calls == []


async def test_images_of_other_identities_are_kept_apart(folder):
    other = Image(WORDS[::-1], identity="other")
    async with cached(folder) as first, cached(folder, other) as second:
        assert await first.everything() == WORDS
        assert await second.everything() == WORDS[::-1]
    async with cached(folder) as first, cached(folder, other) as second:
        assert await first.everything() == WORDS
        assert await second.everything() == WORDS[::-1]
        assert first.reads == second.reads == []


async def test_a_range_is_lent_once_it_is_verified(folder):
    async with cached(folder, Image(HOLEY)) as made:
        await made.everything()
    async with cached(folder, Image(HOLEY)) as made:
        assert made.layer.file_range(100, CHUNK) is None
        await made.layer.read(0, 2 * CHUNK)
        place = made.layer.file_range(100, CHUNK)
        assert os.pread(place.fd, CHUNK, place.offset) == WORDS[100 : 100 + CHUNK]
        await made.layer.read(7 * CHUNK, 2 * CHUNK)
        assert made.layer.file_range(7 * CHUNK, 2 * CHUNK) is None, "a part of it is known zero"


async def test_warming_brings_it_and_reads_it_without_returning_it(folder):
    async with cached(folder) as made:
        await made.layer.cache(0, SIZE)
        assert now(made.layer, 0, SIZE) == WORDS
        assert made.reads == [(0, SIZE)]


async def test_many_readers_of_a_cold_range_cost_one_read(folder):
    async with cached(folder) as made:
        gate = made.faults.hold("read")
        readers = [asyncio.create_task(made.layer.read(n, 2 * CHUNK)) for n in range(50)]
        await gate.waiting()
        gate.release()
        for n, reader in enumerate(readers):
            assert await reader == WORDS[n : n + 2 * CHUNK]
        assert sorted(made.reads) == [(0, 2 * CHUNK), (2 * CHUNK, CHUNK)]


async def test_a_failure_below_is_told_and_nothing_of_it_is_kept(folder):
    async with cached(folder) as made:
        made.faults.fail("read", error=SourceUnavailableError("gone for a moment"))
        with pytest.raises(SourceUnavailableError, match="for a moment"):
            await made.layer.read(0, 10)
        assert await made.layer.read(0, 10) == WORDS[:10]


async def test_a_cancelled_reader_leaves_the_others_theirs(folder):
    async with cached(folder) as made:
        gate = made.faults.hold("read")
        first = asyncio.create_task(made.layer.read(0, 10))
        second = asyncio.create_task(made.layer.read(5, 10))
        await gate.waiting()
        first.cancel()
        gate.release()
        assert await second == WORDS[5:15]
        assert made.reads == [(0, CHUNK)]


async def test_a_stream_is_one_stream_below_and_is_kept(folder):
    contents = random.Random(1).randbytes((5 << 20) + 777)
    async with cached(folder, Image(contents), size=16 << 20, block=64 << 10) as made:
        await made.layer.read(4 << 20, 100)
        async with aclosing(made.layer.stream(1000, len(contents) - 1000)) as pieces:
            found = b"".join([bytes(piece) async for piece in pieces])
        assert found == contents[1000:]
        tail = (4 << 20) + (64 << 10)
        assert made.reads == [
            (4 << 20, 64 << 10),
            (0, 4 << 20),
            (tail, len(contents) - tail),
        ]
        assert now(made.layer, 0, 3 << 20) == contents[: 3 << 20]
    async with cached(folder, Image(contents), size=16 << 20, block=64 << 10) as made:
        async with aclosing(made.layer.stream(0, len(contents))) as pieces:
            found = b"".join([bytes(piece) async for piece in pieces])
        assert found == contents
        assert made.reads == []


# Sharing within a process


async def test_layers_of_one_image_share_its_chunks(folder):
    async with cached(folder) as first, cached(folder) as second:
        assert await first.everything() == WORDS
        assert await second.everything() == WORDS
        assert now(second.layer, 0, SIZE) == WORDS
        assert second.reads == []


async def test_layers_of_one_image_share_reads_under_way(folder):
    async with cached(folder) as first, cached(folder) as second:
        gate = first.faults.hold("read")
        one = asyncio.create_task(first.everything())
        await gate.waiting()
        other = asyncio.create_task(second.everything())
        for _ in range(20):
            await asyncio.sleep(0)
        gate.release()
        assert await one == await other == WORDS
        assert second.reads == []


async def test_a_layer_that_is_closed_leaves_no_reader_of_another_without_bytes(folder):
    async with AsyncExitStack() as stack, cached(folder) as second:
        first = await stack.enter_async_context(cached(folder))
        gate = first.faults.hold("read")
        one = asyncio.create_task(first.everything())
        await gate.waiting()
        other = asyncio.create_task(second.everything())
        for _ in range(20):
            await asyncio.sleep(0)
        await stack.aclose()
        assert await other == WORDS
        with pytest.raises(asyncio.CancelledError):
            await one


# Damage


@pytest.mark.parametrize("place", [0, 1, CHUNK - 1, CHUNK, 17 * CHUNK + 5, SIZE - 1])
async def test_damaged_data_is_read_from_below_again(folder, caplog, place):
    async with cached(folder) as made:
        await made.everything()
    flip(only(folder, ".data"), place)
    start = place // CHUNK * CHUNK
    for reads in ([(start, min(CHUNK, SIZE - start))], []):
        async with cached(folder) as made:
            assert await made.everything() == WORDS
            assert made.reads == reads
            assert made.layer.status()["damaged"] == len(reads)
    assert [record.levelname for record in caplog.records].count("WARNING") == 1
    assert "cached data is damaged" in caplog.text


async def test_a_damaged_chunk_is_not_served_while_the_origin_is_away(folder):
    async with cached(folder) as made:
        await made.everything()
    flip(only(folder, ".data"), 5 * CHUNK)
    async with cached(folder) as made:
        made.faults.fail("read", error=SourceUnavailableError("away"), times=None)
        with pytest.raises(SourceUnavailableError):
            await made.layer.read(5 * CHUNK, 1)
        assert await made.layer.read(6 * CHUNK, 10) == WORDS[6 * CHUNK :][:10]


@pytest.mark.parametrize("seed", range(20))
async def test_a_damaged_map_never_leads_to_a_wrong_byte(folder, seed):
    image = Image(HOLEY)
    async with cached(folder, image) as made:
        await made.everything()
    rng = random.Random(seed)
    path = only(folder, ".map")
    flip(path, *(rng.randrange(BLOCK, path.stat().st_size) for _ in range(1 + seed)))
    for _ in range(2):
        async with cached(folder, image) as made:
            assert await made.everything() == HOLEY
    assert made.reads == [], "what was damaged is whole again"


async def test_a_damaged_header_begins_anew(folder, caplog):
    async with cached(folder) as made:
        await made.everything()
    flip(only(folder, ".map"), 30)
    async with cached(folder) as made:
        assert await made.everything() == WORDS
        assert made.reads == [(0, SIZE)]
    assert "cached data is dropped" in caplog.text


async def test_another_version_of_the_format_is_refused(folder, monkeypatch):
    async with cached(folder):
        pass
    with monkeypatch.context() as later:
        later.setattr("nbdserve.formats.cachemap._VERSION", 2)
        with pytest.raises(NotSupportedError, match=r"version 1, this nbdserve reads 2; remove it"):
            async with cached(folder):
                pass
    async with cached(folder):
        pass


@pytest.mark.parametrize("ending", [".data", ".map"])
@pytest.mark.parametrize("left", [0, 5000, None])
async def test_a_file_that_is_cut_short_or_gone_is_made_whole(folder, ending, left):
    async with cached(folder) as made:
        await made.everything()
    path = only(folder, ending)
    if left is None:
        path.unlink()
    else:
        os.truncate(path, left)
    async with cached(folder) as made:
        assert await made.everything() == WORDS
    async with cached(folder) as made:
        assert await made.everything() == WORDS
        assert made.reads == []


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_a_power_failure_leaves_no_byte_is_wrong(folder, seed):
    """Nothing is synchronised: any sector of either file may be old, new or torn."""
    rng = random.Random(seed)
    image = Image(HOLEY)
    async with cached(folder, image, size=20 * CHUNK) as made:
        for _ in range(30):  # evicts and brings again
            await made.layer.read(rng.randrange(SIZE - CHUNK), CHUNK)
    for path, start in ((only(folder, ".data"), 0), (only(folder, ".map"), BLOCK)):
        data = bytearray(path.read_bytes())
        for at in range(start, len(data), 512):
            if rng.random() < 0.3:
                data[at : at + 512] = bytes(len(data[at : at + 512]))
        path.write_bytes(data)
    async with cached(folder, image) as made:
        assert await made.everything() == HOLEY


# Room


def room(folder):
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir())


async def test_the_folder_stays_within_its_size(folder):
    contents = random.Random(1).randbytes(3 << 20)
    async with cached(folder, Image(contents), size=1 << 20) as made:
        for at in range(0, len(contents), CHUNK):
            assert await made.layer.read(at, CHUNK) == contents[at : at + CHUNK]
            assert room(folder) <= 1 << 20
        assert made.layer.status()["evicted"] > 0
        assert now(made.layer, len(contents) - CHUNK, CHUNK) is not None, "the newest are there"
        assert now(made.layer, 0, CHUNK) is None, "the oldest are not"


async def test_what_is_used_often_stays(folder):
    contents = random.Random(1).randbytes(3 << 20)
    async with cached(folder, Image(contents), size=1 << 20) as made:
        for at in range(GROUP, len(contents), CHUNK):
            assert await made.layer.read(0, CHUNK) == contents[:CHUNK]
            await made.layer.read(at, CHUNK)
        assert made.reads.count((0, CHUNK)) == 1


async def test_use_is_remembered_across_restarts(folder, monkeypatch):
    monkeypatch.setattr("nbdserve.cachestore.imagefiles._COARSE", 0)
    contents = random.Random(1).randbytes(2 << 20)
    image = Image(contents)
    async with cached(folder, image) as made:
        await made.layer.read(GROUP, 12 * GROUP)
        made.content.now += 5000
        made.content._touch(GROUP // CHUNK, GROUP // CHUNK)
    async with cached(folder, image) as made:
        await made.layer.read(14 * GROUP, 6 * GROUP)
        assert made.content.evicted
        states = made.content._map.states
        assert states[GROUP // CHUNK], "used last before the restart"
        assert not states[2 * GROUP // CHUNK]


async def test_images_that_nobody_has_open_are_evicted_too(folder):
    old, new = (Image(random.Random(n).randbytes(800 << 10), identity=str(n)) for n in (1, 2))
    async with cached(folder, old) as made:
        await made.everything()
    async with cached(folder, new) as made:
        assert await made.everything() == new.contents
        assert now(made.layer, 0, made.layer.info.size) == new.contents
        assert room(folder) <= 1 << 20
    async with cached(folder, old) as made:
        assert await made.everything() == old.contents
        assert made.reads, "some of it had to go"


async def test_reads_are_right_while_everything_is_evicted_all_the_time(folder):
    contents = random.Random(1).randbytes(2 << 20)
    async with cached(folder, Image(contents), size=5 * GROUP) as made:

        async def reader(seed):
            rng = random.Random(seed)
            for _ in range(60):
                at, length = rng.randrange(len(contents) - 3 * CHUNK), rng.randrange(3 * CHUNK)
                assert await made.layer.read(at, length) == contents[at : at + length]

        await asyncio.gather(*map(reader, range(8)))
        assert made.layer.status()["evicted"] > 0
        assert room(folder) <= 5 * GROUP + BLOCK + 4096


async def test_a_read_that_an_eviction_overtakes_is_made_again(folder, monkeypatch):
    async with cached(folder) as made:
        await made.everything()
        loop, content = asyncio.get_running_loop(), made.content
        plain = content.files.read

        def overtaken(parts):
            evicted = content.evict([0])
            asyncio.run_coroutine_threadsafe(evicted, loop).result(30)
            plain(parts)

        monkeypatch.setattr(content.files, "read", overtaken)
        view = memoryview(bytearray(CHUNK))
        await made.layer.read_into(0, view)
        assert bytes(view) == WORDS[:CHUNK]
        assert made.reads[1:] == [(0, CHUNK)]


async def test_what_is_being_written_is_not_evicted(folder, monkeypatch):
    """It was listed as evictable, and then written to, before its room was given back."""
    async with cached(folder) as made:
        content, loop = made.content, asyncio.get_running_loop()
        await made.layer.read(0, CHUNK)
        plain, written, go_on = content.files.write, asyncio.Event(), threading.Event()

        def held_up(first, data):
            states = plain(first, data)
            loop.call_soon_threadsafe(written.set)
            assert go_on.wait(30)
            return states

        monkeypatch.setattr(content.files, "write", held_up)
        reading = asyncio.create_task(made.layer.read(CHUNK, CHUNK))
        await written.wait()
        await content.evict([0])
        go_on.set()
        assert await reading == WORDS[CHUNK : 2 * CHUNK]
        assert await made.everything() == WORDS


async def test_what_is_lent_is_not_evicted(folder):
    async with cached(folder) as made:
        await made.everything()
        lent = made.layer.file_range(0, CHUNK)
        await made.content.evict([0, 1])
        assert os.pread(lent.fd, CHUNK, lent.offset) == WORDS[:CHUNK]
        assert made.content.evicted == GROUP
        assert await made.everything() == WORDS


@pytest.mark.parametrize("turns", range(0, 40, 3))
async def test_a_reader_cancelled_while_it_evicts_leaves_no_lock_behind(folder, turns):
    contents = random.Random(1).randbytes(1 << 20)
    async with cached(folder, Image(contents), size=4 * GROUP) as made:
        await made.layer.read(0, 3 * GROUP)
        reader = asyncio.create_task(made.layer.read(8 * GROUP, 3 * GROUP))
        while made.content.evicted == 0 and turns and not reader.done():
            turns -= 1
            await asyncio.sleep(0)
        reader.cancel()
        await asyncio.wait({reader})
        await made.disk._loader.blocks.close()
        assert not made.content.files.data.alone
        lock = Folder(folder)
        assert lock.try_lock()
        lock.close()
        assert await made.everything() == contents


async def test_chunks_being_written_are_not_evicted(folder, monkeypatch):
    async with cached(folder) as made:
        plain, begun, go = made.content.files.write, threading.Event(), threading.Event()

        def slowly(first, chunks):
            begun.set()
            go.wait(30)
            return plain(first, chunks)

        await made.layer.read(GROUP, CHUNK)
        await made.layer.read(0, CHUNK)
        assert [group for group, _ in made.content.evictable()] == [1, 0]
        monkeypatch.setattr(made.content.files, "write", slowly)
        reader = asyncio.create_task(made.layer.read(CHUNK, CHUNK))
        await asyncio.to_thread(begun.wait, 30)
        assert [group for group, _ in made.content.evictable()] == [1]
        go.set()
        assert await reader == WORDS[CHUNK : 2 * CHUNK]
        assert [group for group, _ in made.content.evictable()] == [1, 0]


async def test_chunks_being_evicted_are_not_written(folder, monkeypatch):
    async with cached(folder) as made:
        plain, begun, go = made.content.files.drop, threading.Event(), threading.Event()

        def slowly(numbers, groups):
            begun.set()
            go.wait(30)
            plain(numbers, groups)

        await made.layer.read(0, CHUNK)
        monkeypatch.setattr(made.content.files, "drop", slowly)
        evicting = asyncio.create_task(made.content.evict([0]))
        await asyncio.to_thread(begun.wait, 30)
        assert await made.layer.read(0, CHUNK) == WORDS[:CHUNK]
        go.set()
        await evicting
        assert now(made.layer, 0, CHUNK) is None
        await made.layer.cache(0, CHUNK)
        assert now(made.layer, 0, CHUNK) == WORDS[:CHUNK]


async def test_what_was_evicted_is_not_missed_after_a_restart(folder, caplog):
    async with cached(folder, size=20 * CHUNK) as made:
        for at in range(0, SIZE, CHUNK):
            await made.layer.read(at, 1)
        assert made.content.evicted
    async with cached(folder) as made:
        assert await made.everything() == WORDS
        assert made.content.damaged == 0


async def test_what_is_on_disk_is_not_held_in_memory_too(folder):
    async with cached(folder) as made:
        await made.everything()
        assert made.disk._loader.blocks.weight == 0


async def test_what_was_lent_stays_and_only_half_of_the_room_is_lent(folder):
    contents = random.Random(1).randbytes(3 << 20)
    async with cached(folder, Image(contents), size=1 << 20) as made:
        lent = []
        for at in range(0, len(contents), GROUP):
            await made.layer.read(at, GROUP)
            place = made.layer.file_range(at, GROUP)
            if place is not None:
                lent.append(place)
        assert len(lent) == (1 << 20) // 2 // GROUP
        for fd, at in lent:
            assert os.pread(fd, GROUP, at) == contents[at : at + GROUP]


async def test_a_size_of_nothing_still_reads(folder):
    async with cached(folder, size=0) as made:
        assert await made.everything() == WORDS
        assert room(folder) <= 2 * BLOCK


async def test_room_that_a_crash_left_unclaimed_is_given_back(folder):
    async with cached(folder) as made:
        await made.layer.read(0, CHUNK)
    with only(folder, ".data").open("r+b") as data:
        data.seek(20 * CHUNK)
        data.write(bytes(range(256)) * 16)
    async with cached(folder) as made:
        assert await made.layer.read(0, CHUNK) == WORDS[:CHUNK]
    assert only(folder, ".data").stat().st_blocks * 512 == CHUNK


async def test_the_map_does_not_grow_for_ever(folder, monkeypatch):
    monkeypatch.setattr("nbdserve.cachestore.claims._SLACK", 10)
    for _ in range(6):
        async with cached(folder, size=8 * CHUNK) as made:
            assert await made.everything() == WORDS
            for at in range(0, SIZE, CHUNK):
                await made.layer.read(at, 1)
    assert only(folder, ".map").stat().st_size <= BLOCK + RECORD * 140
    async with cached(folder) as made:
        assert await made.everything() == WORDS


# What it is for


async def test_what_has_no_identity_is_refused(folder):
    with pytest.raises(ConfigError, match="leave path= out"):
        async with cached(folder, Image(identity=None)):
            pass


async def test_what_can_be_written_is_refused(folder):
    with pytest.raises(ConfigError, match="put cow above"):
        async with cached(folder, Image(can=Capability.WRITE)):
            pass


async def test_blocks_smaller_than_those_beneath_are_refused(folder):
    class Coarse(Image):
        @property
        def info(self):
            return DeviceInfo(8192, BlockSize(8192, 8192, 1 << 20))

    with pytest.raises(ConfigError, match="no multiple of 8192"):
        async with cached(folder, Coarse(bytes(8192))):
            pass
    async with cached(folder):
        pass


async def test_blocks_too_small_for_the_image_are_refused(folder):
    class Huge(Image):
        @property
        def info(self):
            return DeviceInfo(1 << 60)

    with pytest.raises(ConfigError, match="write at least 4294967296"):
        async with cached(folder, Huge()):
            pass


async def test_a_write_is_refused(folder):
    async with cached(folder) as made:
        with pytest.raises(ReadOnlyError, match="put the layer cow above"):
            await made.layer.write(0, memoryview(b"x"), fua=False)


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"fill": "background"}, "goes with path= only"),
        ({"path": "x", "fill_rate": 5}, "goes with fill=background only"),
        ({"path": "x", "fill": "background", "fill_rate": 0}, "never be done"),
    ],
)
def test_keys_that_go_together_are_told(params, text):
    with pytest.raises(ConfigError, match=text):
        CacheLayer(Image(), CacheParams(size=1, **params))


async def test_a_folder_that_cannot_be_had_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DeviceError, match=r"file: .*; name a folder"):
        async with cached(tmp_path / "file"):
            pass


async def test_the_chunk_size_of_what_is_there_counts(folder):
    async with cached(folder, block=2 * CHUNK) as made:
        await made.everything()
    async with cached(folder) as made:
        assert await made.everything() == WORDS
        assert made.reads == []


async def test_status_tells_what_it_does(folder):
    async with cached(folder) as made:
        await made.layer.read(0, CHUNK)
        now(made.layer, 0, CHUNK)
        status = made.layer.status()
        assert status["present"] == CHUNK
        assert (status["hits"], status["misses"]) == (1, 1)
        assert status["limit"] == 1 << 20
        assert status["writable"]
        assert made.layer.identity == "image"


async def test_it_is_the_layer_that_logs_its_opening(folder, caplog):
    caplog.set_level(logging.INFO)
    async with cached(folder):
        pass
    assert "cache opened path=" in caplog.text
