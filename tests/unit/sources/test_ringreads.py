"""The ring of an event loop: shared by files, waited for, given up where it fails.

Left out by conftest where io_uring is forbidden.
"""

import asyncio
import errno
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from coldfile import one, outcome
from nbdserve.iouring import Ring
from nbdserve.sources import coldreads, ringreads
from nbdserve.sources.coldreads import ColdReads

DESCRIPTORS = Path("/proc/self/fd")


class Pipe:
    """A file whose reads wait until something is written to it."""

    def __init__(self):
        self.fd, self._end = os.pipe()
        self.reads = ColdReads(self.fail, self.fail)
        self.reads.open(self.fd)

    def fail(self, *_):
        raise OSError(errno.ESPIPE, "left to threads")

    def write(self, data):
        os.write(self._end, data)

    def close(self):
        os.close(self.fd)
        os.close(self._end)


@pytest.fixture
async def pipe():
    made = Pipe()
    yield made
    await made.reads.close()
    made.close()
    assert not ringreads._rings


async def test_closing_waits_for_what_the_kernel_has_begun(pipe):
    view = memoryview(bytearray(4))
    first = asyncio.create_task(outcome(pipe.reads, 0, view))
    await asyncio.sleep(0)
    closing = asyncio.create_task(pipe.reads.close())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not closing.done()
    pipe.write(b"late")
    await closing
    assert await first is None
    assert view == b"late"


async def test_a_file_that_does_not_answer_leaves_room_for_others(
    pipe, image, pattern, monkeypatch
):
    monkeypatch.setattr(coldreads, "_MOST", 4)
    waiting = [
        asyncio.create_task(outcome(pipe.reads, 0, memoryview(bytearray(1)))) for _ in range(6)
    ]
    await asyncio.sleep(0)
    other = ColdReads(image.read, image.prefetch)
    other.open(image.fd)
    assert other._ring is pipe.reads._ring
    assert await one(other, 4096) == pattern[4096:][:4096]
    await other.close()
    pipe.write(b"four")
    found = await asyncio.gather(*waiting)
    assert found[:4] == [None] * 4
    assert [error.strerror for error in found[4:]] == ["left to threads"] * 2


async def test_a_ring_without_its_thread_is_none(image, pattern, monkeypatch):
    class Thread(threading.Thread):
        def start(self):
            raise RuntimeError("can't start new thread")

    before = len(list(DESCRIPTORS.iterdir()))
    monkeypatch.setattr(ringreads, "threading", SimpleNamespace(Thread=Thread))
    reads = ColdReads(image.read, image.prefetch)
    reads.open(image.fd)
    assert await one(reads, 8) == pattern[8:][:4096]
    await reads.close()
    assert len(list(DESCRIPTORS.iterdir())) == before


async def test_a_ring_that_fails_is_given_up_and_its_reads_are_made(
    image, pattern, monkeypatch, caplog
):
    def broken(self, count):
        raise OSError(errno.EBADR, os.strerror(errno.EBADR))

    monkeypatch.setattr(Ring, "enter", broken)
    reads = ColdReads(image.read, image.prefetch)
    reads.open(image.fd)
    async with asyncio.timeout(30):
        assert await asyncio.gather(*(one(reads, at) for at in (0, 8, 4096))) == [
            pattern[at : at + 4096] for at in (0, 8, 4096)
        ]
        assert await one(reads, 100) == pattern[100:][:4096]
    assert "io_uring fails" in caplog.text
    await reads.close()
