"""Bytes of files on their way out, among buffers: in order, whole, or not at all."""

import asyncio
import os
import socket

import pytest

from nbdserve.device import FileRange
from nbdserve.server import outbox as outbox_module
from nbdserve.server.outbox import Outbox


@pytest.fixture
def data():
    return os.urandom(4 << 20)


@pytest.fixture
def file(tmp_path, data):
    fd = os.open(tmp_path / "disk.img", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, data, 0)
    yield fd
    os.close(fd)


class Ends:
    """An outbox on one end of a socket pair, the bare socket on the other."""

    def __init__(self):
        self.ours, self.theirs = socket.socketpair()
        for sock in (self.ours, self.theirs):
            sock.setblocking(False)
        self.errors = []
        self.outbox = Outbox(
            self.ours, asyncio.get_running_loop(),
            on_progress=lambda: None, on_error=self.errors.append,
        )  # fmt: skip

    async def receive(self, count):
        found = bytearray()
        while len(found) < count:
            more = await asyncio.get_running_loop().sock_recv(self.theirs, 1 << 20)
            assert more, "the connection ended"
            found += more
        return bytes(found)


@pytest.fixture
async def ends():
    made = Ends()
    yield made
    made.outbox.close()
    made.ours.close()
    made.theirs.close()


async def test_files_and_buffers_keep_their_order(ends, file, data):
    ends.outbox.put([b"one", b"head"], more=True)
    ends.outbox.put_file(FileRange(file, 4096), 2 << 20)
    ends.outbox.put([b"two"])
    ends.outbox.put_file(FileRange(file, 0), 100_000)
    ends.outbox.put([b"three"])
    assert ends.outbox.size > 0  # more than a socket holds
    wanted = b"onehead" + data[4096 : 4096 + (2 << 20)] + b"two" + data[:100_000] + b"three"
    assert await ends.receive(len(wanted)) == wanted
    assert ends.outbox.size == 0
    assert ends.errors == []


async def test_what_left_the_page_cache_meanwhile_is_read_in_a_thread(
    ends, file, data, monkeypatch
):
    monkeypatch.setattr(outbox_module, "is_resident", lambda *place: False)
    ends.outbox.put_file(FileRange(file, 0), 4 << 20)
    ends.outbox.put([b"end"])
    assert await ends.receive((4 << 20) + 3) == data + b"end"
    assert ends.outbox.size == 0


async def test_a_file_that_shrinks_ends_the_connection_after_its_last_true_byte(ends, file, data):
    ends.outbox.put_file(FileRange(file, 0), 4 << 20)
    left = ends.outbox.size
    assert left
    os.ftruncate(file, 4096)
    assert (await ends.receive((4 << 20) - left))[:4096] == data[:4096]
    for _ in range(1000):
        if ends.errors:
            break
        await asyncio.sleep(0.001)
    assert "shrank" in str(ends.errors[0])
    assert ends.outbox.size == 0
    with pytest.raises(BlockingIOError):
        ends.theirs.recv(1)


async def test_a_closed_outbox_drops_what_a_thread_still_reads(ends, file, monkeypatch):
    monkeypatch.setattr(outbox_module, "is_resident", lambda *place: False)
    ends.outbox.put_file(FileRange(file, 0), 4 << 20)
    await ends.receive(1)
    ends.outbox.close()
    assert ends.outbox.size == 0
    ends.outbox.put_file(FileRange(file, 0), 4096)
    assert ends.outbox.size == 0
