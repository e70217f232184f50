"""An xz layer over a file in memory whose reads are recorded, and can be held or failed."""

import asyncio
import binascii
import contextlib
import os
import random
import subprocess

from xz.common import create_xz_header, create_xz_index_footer

from nbdserve.formats.xzindex import ReadRange, advance, read_index
from nbdserve.layers.xz import XzLayer, XzParams
from nbdserve.sources.data import DataParams, DataSource
from nbdserve.testing.faults import FaultyDevice, RecordingDevice
from nbdserve.threads import cpu_pool

__all__ = [
    "Chain", "Slow", "chains", "index_of", "noise", "prose", "read_all", "settle", "stored",
    "turns", "xz",
]  # fmt: skip


def xz(data, *options):
    """Compress by the xz tool."""
    return subprocess.run(
        ["xz", "-c", "-0", *options], input=data, capture_output=True, check=True
    ).stdout


def noise(size, seed=1):
    """Data that does not compress."""
    return random.Random(seed).randbytes(size)


def prose(size, seed=1):
    """Four bits of noise a byte: coded chunks of LZMA2, of about half the size."""
    return random.Random(seed).randbytes(size).hex().encode()[:size]


def index_of(packed):
    """Read the index of an xz file."""
    reader = read_index(len(packed))
    wanted = advance(reader, None)
    while isinstance(wanted, ReadRange):
        wanted = advance(reader, packed[wanted.offset :][: wanted.length])
    return wanted


def stored(data):
    """Make a file of one block of stored LZMA2 chunks: every byte of `data` is in it as it is."""
    head = bytes((2, 0, 0x21, 1, 22, 0, 0, 0))  # one filter, LZMA2 with 4 MiB of dictionary
    chunks = [data[at : at + (64 << 10)] for at in range(0, len(data), 64 << 10)]
    body = b"".join(
        bytes((2 if at else 1,)) + (len(chunk) - 1).to_bytes(2, "big") + chunk
        for at, chunk in enumerate(chunks)
    )
    block = head + binascii.crc32(head).to_bytes(4, "little") + body + bytes(1)
    unpadded = len(block) + 4
    block += bytes(-len(block) % 4) + binascii.crc32(data).to_bytes(4, "little")
    return create_xz_header(1) + block + create_xz_index_footer(1, [(unpadded, len(data))])


class Chain:
    """An xz layer over a file whose reads are recorded and can be held or failed."""

    def __init__(self, packed, **params):
        self.source = DataSource(DataParams(hex=bytes(packed)))
        self.record = RecordingDevice(self.source, None)
        self.faults = FaultyDevice(self.record, None)
        self.layer = XzLayer(self.faults, XzParams(**params))

    async def open(self):
        await self.layer.open(read_only=True)
        self.opening = self.record.made("read")
        self.record.calls.clear()
        return self

    @property
    def fetched(self):
        return self.record.made("read")


@contextlib.asynccontextmanager
async def chains():
    """Open chains over packed bytes: `await made(packed, cache=…)`; closed at the end."""
    opened = []

    async def make(packed, **params):
        made = await Chain(packed, **params).open()
        opened.append(made)
        return made

    try:
        yield make
    finally:
        for made in opened:
            await made.layer.close()


class Slow:
    """A source that gives a stream piece by piece, when it is told to."""

    def __init__(self, made, monkeypatch):
        self.inner = made.record.stream
        self.given = 0
        self.allowed = 0
        self.more = asyncio.Event()
        monkeypatch.setattr(made.faults, "stream", self.stream)

    async def stream(self, offset, length):
        async for piece in self.inner(offset, length):
            for at in range(0, len(piece), 4096):
                while self.given >= self.allowed:
                    self.more.clear()
                    await self.more.wait()
                self.given += 1
                yield piece[at : at + 4096]

    def allow(self, bytes_):
        self.allowed += -(-bytes_ // 4096)
        self.more.set()


async def turns():
    """Let the loop do all it can while the decoders do nothing."""
    for _ in range(20):
        await asyncio.sleep(0)


async def settle():
    """Let the loop and the decoders do all they can without outside help."""
    for _ in range(20):
        await asyncio.sleep(0)
        for _ in range(os.cpu_count() or 1):
            await asyncio.get_running_loop().run_in_executor(cpu_pool(), int)


async def read_all(device, step):
    size = device.info.size
    parts = [await device.read(at, min(step, size - at)) for at in range(0, size, step)]
    return b"".join(parts)
