"""A device in memory whose every wait is a gate the test opens."""

import asyncio
import struct

from nbdserve.device import BlockSize, Capability, Device, DeviceInfo
from nbdserve.extents import DATA, ZERO_HOLE, Extent

ALL = Capability.WRITES | Capability.CACHE | Capability.EXTENTS


class GatedDevice(Device):
    """A device whose every wait is a gate the test opens."""

    def __init__(self, size=1 << 20, *, can=ALL, block_size=None):
        self.data = bytearray(
            b"".join(struct.pack(">Q", at) for at in range(8, size + 8, 8))[:size]
        )
        self._info = DeviceInfo(size, block_size or BlockSize(), can)
        self.hot = True
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = asyncio.Semaphore(0)
        self.calls = []
        self.failure = None

    @property
    def info(self):
        return self._info

    async def _pass(self, *call):
        self.calls.append(call)
        self.waiting.release()
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure

    def read_into_nowait(self, offset, view):
        if not self.hot or self.failure:
            return False
        view[:] = self.data[offset : offset + len(view)]
        return True

    async def read_into(self, offset, view):
        await self._pass("read", offset, len(view))
        view[:] = self.data[offset : offset + len(view)]

    async def write(self, offset, data, *, fua):
        await self._pass("write", offset, len(data), fua)
        self.data[offset : offset + len(data)] = data

    async def write_zeroes(self, offset, length, *, fua, may_trim, fast):
        await self._pass("write_zeroes", offset, length, fua, may_trim, fast)
        self.data[offset : offset + length] = bytes(length)

    async def trim(self, offset, length, *, fua):
        await self._pass("trim", offset, length, fua)

    async def flush(self):
        await self._pass("flush")

    async def cache(self, offset, length):
        await self._pass("cache", offset, length)

    async def extents(self, offset, length):
        await self._pass("extents", offset, length)
        return [Extent(4096, DATA), Extent(length, ZERO_HOLE)]
