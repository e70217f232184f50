"""An export's device as one client of an exclusive export sees it: its writes ask for the lease."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nbdserve.device import Device, Done, Passthrough
from nbdserve.server.lease import Lease, Tenant

__all__ = ["LeasedDevice"]


class LeasedDevice(Passthrough):
    """Forward everything, a write only while its client holds the lease.

    A flush is nobody's privilege: it changes no byte, and who has handed over may still have to
    make durable what it wrote before.

    Args:
        inner: the export's device, borrowed.
        lease: the export's.
        tenant: the client.
    """

    def __init__(self, inner: Device, lease: Lease, tenant: Tenant) -> None:
        super().__init__(inner)
        self._lease = lease
        self._tenant = tenant

    def begin_read(self, offset: int, view: memoryview, done: Done) -> bool:
        return self.inner.begin_read(offset, view, done)

    async def write(self, offset: int, data: memoryview, *, fua: bool) -> None:
        async with self._writing():
            await self.inner.write(offset, data, fua=fua)

    def write_nowait(self, offset: int, data: memoryview, *, fua: bool, done: Done) -> bool:
        if not self._lease.begin_write_nowait(self._tenant):
            return False

        def ended(error: Exception | None) -> None:
            self._lease.end_write(self._tenant)
            done(error)

        try:
            begun = self.inner.write_nowait(offset, data, fua=fua, done=ended)
        except BaseException:
            self._lease.end_write(self._tenant)
            raise
        if not begun:
            self._lease.end_write(self._tenant)
        return begun

    def flush_nowait(self, done: Done) -> bool:
        return self.inner.flush_nowait(done)

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool, may_trim: bool, fast: bool
    ) -> None:
        async with self._writing():
            await self.inner.write_zeroes(offset, length, fua=fua, may_trim=may_trim, fast=fast)

    async def trim(self, offset: int, length: int, *, fua: bool) -> None:
        async with self._writing():
            await self.inner.trim(offset, length, fua=fua)

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[None]:
        await self._lease.begin_write(self._tenant)
        try:
            yield
        finally:
            self._lease.end_write(self._tenant)
