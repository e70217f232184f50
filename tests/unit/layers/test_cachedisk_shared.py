"""One folder, several processes: two event loops have each their own locks, as processes have."""

import asyncio
import os
import random
import threading

import pytest

from cache_chain import CHUNK, SIZE, WORDS, Image, cached, now, only

BIG = random.Random(1).randbytes(2 << 20)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def ask_at_once(monkeypatch):
    monkeypatch.setattr("nbdserve.cachestore.content._ASK_AGAIN", 0)


class Elsewhere:
    """A cache in another event loop, in a thread of its own; as if in another process."""

    def __init__(self, folder, image=None, **params):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._context = cached(folder, image, **params)
        self.made = self.run(self._context.__aenter__())

    def run(self, call):
        return asyncio.run_coroutine_threadsafe(call, self._loop).result(60)

    def everything(self):
        return self.run(self.made.everything())

    def read(self, offset, length):
        return self.run(self.made.layer.read(offset, length))

    def close(self):
        if self._context is not None:
            context, self._context = self._context, None
            self.run(context.__aexit__(None, None, None))
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


@pytest.fixture
def elsewhere():
    made = []

    def open_one(*words, **params):
        made.append(Elsewhere(*words, **params))
        return made[-1]

    yield open_one
    for one in made:
        one.close()


async def test_one_process_adds_and_the_other_sees_it(folder, elsewhere):
    other = elsewhere(folder)
    async with cached(folder) as made:
        assert other.made.layer.status()["writable"]
        assert not made.layer.status()["writable"]
        assert other.read(0, 4 * CHUNK) == WORDS[: 4 * CHUNK]
        assert await made.layer.read(0, 4 * CHUNK) == WORDS[: 4 * CHUNK]
        assert made.reads == []
        assert await made.everything() == WORDS, "what is not there is read, but not kept"
        assert made.reads == [(4 * CHUNK, SIZE - 4 * CHUNK)]
        assert other.made.layer.status()["present"] == 4 * CHUNK


async def test_who_misses_while_news_are_read_waits_for_them(folder, elsewhere, monkeypatch):
    other = elsewhere(folder)
    async with cached(folder) as made:
        other.everything()
        plain, read, go = made.content.files.catch_up, threading.Event(), threading.Event()

        def slowly():
            found = plain()
            read.set()
            go.wait(30)
            return found

        monkeypatch.setattr(made.content.files, "catch_up", slowly)
        first = asyncio.create_task(made.layer.read(0, CHUNK))
        await asyncio.to_thread(read.wait, 30)
        monkeypatch.setattr(made.content.files, "catch_up", plain)
        second = asyncio.create_task(made.layer.read(4 * CHUNK, CHUNK))
        for _ in range(20):
            await asyncio.sleep(0)
        go.set()
        assert await first == WORDS[:CHUNK]
        assert await second == WORDS[4 * CHUNK : 5 * CHUNK]
        assert made.reads == []


async def test_the_other_takes_over_when_the_first_has_ended(folder, elsewhere):
    other = elsewhere(folder)
    async with cached(folder) as made:
        other.read(0, CHUNK)
        other.close()
        assert await made.layer.read(CHUNK, CHUNK) == WORDS[CHUNK : 2 * CHUNK]
        assert made.layer.status()["writable"]
        assert now(made.layer, 0, 2 * CHUNK) is None, "what the first wrote is verified first"
        assert await made.layer.read(0, 2 * CHUNK) == WORDS[: 2 * CHUNK]
        assert made.reads == [(CHUNK, CHUNK)]
    async with cached(folder) as made:
        assert await made.layer.read(0, 2 * CHUNK) == WORDS[: 2 * CHUNK]
        assert made.reads == []


async def test_a_map_that_is_written_anew_is_noticed(folder, elsewhere, monkeypatch):
    monkeypatch.setattr("nbdserve.cachestore.claims._SLACK", 0)
    other = elsewhere(folder)
    async with cached(folder) as made:
        other.everything()
        first = only(folder, ".map").stat().st_ino

        async def rewrite():
            other.made.content.files.claims.compact({})

        other.run(rewrite())
        assert only(folder, ".map").stat().st_ino != first
        assert await made.everything() == WORDS
        assert made.reads == []
        assert not made.layer.status()["writable"], "the new map is locked too"


async def test_nothing_is_evicted_that_another_process_has_open(folder, elsewhere):
    other = elsewhere(folder, Image(BIG))
    async with cached(folder, Image(BIG)) as made:
        other.read(0, 512 << 10)
        await made.layer.read(0, 512 << 10)
        place = made.layer.file_range(0, 512 << 10)
        for at in range(0, len(BIG), 64 << 10):
            assert other.read(at, 64 << 10) == BIG[at : at + (64 << 10)]
        assert now(made.layer, 0, 512 << 10) == BIG[: 512 << 10]
        assert os.pread(place.fd, 512 << 10, place.offset) == BIG[: 512 << 10]
        assert other.made.layer.status()["evicted"] == 0
        assert other.made.layer.status()["used"] <= 1 << 20, "it keeps no more instead"
    other.run(other.made.layer.cache(1 << 20, 1 << 20))
    assert other.made.layer.status()["evicted"] > 0, "alone again"


async def test_another_image_in_use_elsewhere_is_left_alone(folder, elsewhere):
    other = elsewhere(folder, Image(BIG[: 512 << 10], identity="other"))
    other.everything()
    async with cached(folder, Image(BIG)) as made:
        assert await made.everything() == BIG
        used = sum(path.stat().st_blocks * 512 for path in folder.iterdir())
        assert used <= 1 << 20
    assert other.everything() == BIG[: 512 << 10]
    assert len(other.made.reads) == 1


async def test_a_folder_kept_locked_by_another_process_holds_up_no_reader(folder):
    from nbdserve.cachestore.folder import Folder

    async with cached(folder, Image(BIG), size=256 << 10) as made:
        lock = Folder(folder)
        assert lock.try_lock()
        assert await made.everything() == BIG
        lock.close()
        assert await made.everything() == BIG


async def test_opening_waits_for_the_folder_and_says_when_it_waits_in_vain(folder, monkeypatch):
    from nbdserve.cachestore.folder import Folder
    from nbdserve.errors import DeviceError

    monkeypatch.setattr("nbdserve.cachestore.store._OPEN_PAUSE", 0)
    lock = Folder(folder)
    assert lock.try_lock()
    with pytest.raises(DeviceError, match="kept locked by another process"):
        async with cached(folder):
            pass
    lock.close()
    async with cached(folder) as made:
        assert await made.everything() == WORDS


async def test_it_fills_what_another_process_does_not(folder, elsewhere, monkeypatch):
    monkeypatch.setattr("nbdserve.layers.cachefill._LOOK_AGAIN", 0.001)
    image = Image(BIG, identity="big")
    other = elsewhere(folder, image, size=8 << 20)
    async with cached(folder, image, size=8 << 20, fill="background") as made:
        other.read(0, 1 << 20)
        while made.layer.status()["present"] < 1 << 20:  # noqa: ASYNC110 -- no event is set
            await asyncio.sleep(0.001)
        assert made.reads == []
        other.close()
        while made.layer.status()["fill"] != "done":  # noqa: ASYNC110 -- no event is set
            await asyncio.sleep(0.001)
        assert made.reads == [(1 << 20, 1 << 20)]
        assert await made.everything() == BIG
