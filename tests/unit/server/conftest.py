"""A transmission over a socket pair, with the device and the raw bytes at the test's hand."""

import asyncio
import contextlib
import socket
import struct

import pytest

from nbdserve.protocol.messages import Negotiated, ReplyMode
from nbdserve.protocol.requests import encode_request
from nbdserve.server.exports import Export, export_facts
from nbdserve.server.limits import Limits
from nbdserve.server.transmission import Transmission
from nbdserve.spec import ElementSpec, ExportSpec


class Wire:
    """The client's end: raw bytes out, raw bytes in."""

    def __init__(self, sock, transmission, task, mode):
        self.sock, self.transmission, self.task, self.mode = sock, transmission, task, mode

    async def send(self, *requests):
        extended = self.mode is ReplyMode.EXTENDED
        data = b"".join(encode_request(r, extended=extended) for r in requests)
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def receive(self, count):
        found = b""
        while len(found) < count:
            more = await asyncio.get_running_loop().sock_recv(self.sock, count - len(found))
            if not more:
                raise EOFError(found)
            found += more
        return found

    async def simple(self, length=0):
        """Receive one simple reply: (error, cookie, data)."""
        magic, error, cookie = struct.unpack(">IIQ", await self.receive(16))
        assert magic == 0x67446698
        return error, cookie, await self.receive(length if error == 0 else 0)

    async def chunk(self):
        """Receive one structured or extended chunk: (flags, type, cookie, payload)."""
        if self.mode is ReplyMode.EXTENDED:
            magic, flags, type_, cookie, _, length = struct.unpack(
                ">IHHQQQ", await self.receive(32)
            )
            assert magic == 0x6E8A278C
        else:
            magic, flags, type_, cookie, length = struct.unpack(">IHHQI", await self.receive(20))
            assert magic == 0x668E33EF
        return flags, type_, cookie, await self.receive(length)

    async def end(self):
        """Wait until the server has finished with the connection."""
        await self.task


@pytest.fixture
async def connect():
    """Make connections: `await connect(device, mode)` gives a `Wire`."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(
            device, mode=ReplyMode.STRUCTURED, *, limits=None, base=True, trailing=b"", buffer=None
        ):
            ours, theirs = socket.socketpair()
            for sock in (ours, theirs):
                sock.setblocking(False)
                stack.callback(sock.close)
            if buffer:
                theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
            facts = export_facts(ExportSpec(ElementSpec("memory")), device.info)
            transmission = Transmission(
                theirs,
                Export(device, facts),
                Negotiated(facts, mode, base),
                limits or Limits(),
                peer="test",
            )

            async def serve():
                try:
                    await transmission.run(trailing)
                finally:
                    theirs.close()

            task = asyncio.create_task(serve())

            async def stop():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

            stack.push_async_callback(stop)
            return Wire(ours, transmission, task, mode)

        yield make
