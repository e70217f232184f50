"""Caches on disk over small images whose reads are recorded, held or failed."""

import asyncio
import contextlib
import struct
from pathlib import Path

from nbdserve.absent import Absent
from nbdserve.device import Capability, Device, DeviceInfo, NoParams
from nbdserve.errors import SourceUnavailableError
from nbdserve.layers.cache import CacheLayer
from nbdserve.layers.cacheparams import CacheParams
from nbdserve.testing.faults import FaultyDevice, RecordingDevice

K = 1024
CHUNK = 4 * K
GROUP = 16 * CHUNK
SIZE = 40 * CHUNK - 1000  # the last chunk is a part of one
WORDS = struct.pack(f">{SIZE // 8}Q", *range(8, SIZE + 8, 8))


class Image(Device):
    """Bytes that never change and never come at once, as those of a far image."""

    def __init__(self, contents=WORDS, *, identity="image", can=Capability.NONE):
        self.contents = contents
        self.name = identity
        self.can = can

    @property
    def info(self):
        return DeviceInfo(len(self.contents), can=self.can)

    @property
    def identity(self):
        return self.name

    async def read_into(self, offset, view):
        await asyncio.sleep(0)
        view[:] = self.contents[offset : offset + len(view)]


class Away:
    """A chain that cannot be opened, until the test gives it an image.

    Attributes:
        device: what stands in for it.
        image: what it will be.
    """

    def __init__(self):
        self.image = None
        self._time = 0
        self.device = Absent(self._reopen, self._cause(), clock=self._clock)

    @property
    def outermost(self):
        return self.image

    async def close(self):
        pass

    async def _reopen(self):
        if self.image is None:
            raise self._cause()
        return self

    def _cause(self):
        return SourceUnavailableError("the origin is away")

    def _clock(self):
        self._time += 1000  # it is always time to try again
        return self._time


class Cached:
    """A cache on disk and what lies beneath it."""

    def __init__(self, layer, record, faults):
        self.layer = layer
        self.record = record
        self.faults = faults

    @property
    def disk(self):
        return self.layer.inner

    @property
    def content(self):
        return self.disk._content

    @property
    def reads(self):
        return self.record.made("read")

    async def everything(self):
        return await self.layer.read(0, self.layer.info.size)


@contextlib.asynccontextmanager
async def cached(folder: Path, image=None, *, beneath="", **params):
    """Open a cache in a folder over an image; closes it at the end."""
    record = RecordingDevice(Image() if image is None else image, NoParams())
    faults = FaultyDevice(record, NoParams())
    inner = image if isinstance(image, Absent) else faults
    wanted = CacheParams(**{"path": folder, "size": 1 << 20, "block": CHUNK, **params})
    layer = CacheLayer(inner, wanted)
    layer.beneath = beneath
    await layer.open(read_only=True)
    try:
        yield Cached(layer, record, faults)
    finally:
        await layer.close()


def only(folder: Path, ending: str) -> Path:
    """Return the one file of the folder with this ending."""
    (found,) = folder.glob(f"*{ending}")
    return found


def flip(path: Path, *places: int) -> None:
    """Damage a file: invert the bytes at these places."""
    data = bytearray(path.read_bytes())
    for place in places:
        data[place] ^= 0xFF
    path.write_bytes(data)


def now(device, offset, length):
    """Read without waiting: the bytes, or None."""
    view = memoryview(bytearray(length))
    return bytes(view) if device.read_into_nowait(offset, view) else None
