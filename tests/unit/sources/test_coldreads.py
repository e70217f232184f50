"""Cold reads, in the ring and in threads: right bytes, each its own outcome, none left behind."""

import asyncio
import errno
import gc

import pytest

from coldfile import can_ring, one, outcome
from nbdserve.errors import DeviceError
from nbdserve.sources import ringreads
from nbdserve.sources.coldreads import ColdReads

SIZE = 1 << 20


@pytest.fixture(params=["ring"] * can_ring() + ["threads"])
def where(request, monkeypatch):
    """Have reads made in a ring, or where there is none to be had."""
    if request.param == "threads":

        def forbidden(_):
            raise OSError(errno.EPERM, "not for you")

        monkeypatch.setattr(ringreads, "Ring", forbidden)
    return request.param


@pytest.fixture
async def reads(where, image):
    made = ColdReads(image.read, image.prefetch)
    made.open(image.fd)
    assert (made._ring is None) == (where == "threads")
    yield made
    await made.close()
    assert not ringreads._rings


@pytest.mark.parametrize("length", [1, 512, 4096, 64 << 10, 200_000])
async def test_the_bytes_are_those_of_the_file(reads, pattern, length):
    offsets = range(0, SIZE - length, max(1, (SIZE - length) // 300))
    views = [memoryview(bytearray(length)) for _ in offsets]
    jobs = [outcome(reads, at, view) for at, view in zip(offsets, views, strict=True)]
    assert set(await asyncio.gather(*jobs)) == {None}
    assert all(view == pattern[at : at + length] for at, view in zip(offsets, views, strict=True))


async def test_beyond_the_end_is_an_error_that_names_the_file(reads, path):
    view = memoryview(bytearray(100))
    error = await outcome(reads, SIZE - 50, view)
    assert isinstance(error, DeviceError)
    assert str(error).startswith(f"file: {path}: shrank while open (nothing at {SIZE}")
    assert await outcome(reads, SIZE - 100, view) is None


async def test_who_gives_up_leaves_the_others_and_the_buffer(reads, pattern):
    tasks = [asyncio.create_task(one(reads, at)) for at in range(0, SIZE, 4096)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    gc.collect()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    for number, data in enumerate(found):
        if number % 2:
            assert data == pattern[4096 * number :][:4096]
        else:
            assert isinstance(data, asyncio.CancelledError)


async def test_without_a_ring_it_is_told_for_those_who_look(where, image, caplog):
    caplog.set_level("DEBUG")
    reads = ColdReads(image.read, image.prefetch)
    reads.open(image.fd)
    await reads.close()
    assert ("no io_uring" in caplog.text) == (where == "threads")
