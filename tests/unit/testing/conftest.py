"""A server's connection at the other end of a socket pair."""

import asyncio
import contextlib
import socket

import pytest

from nbdserve.server.connection import Connection
from nbdserve.server.exports import Exports
from nbdserve.server.limits import Limits
from nbdserve.spec import ElementSpec, ExportSpec

SIZE = 1 << 20


def pair(stack):
    """Two connected non-blocking sockets."""
    sockets = socket.socketpair()
    for sock in sockets:
        sock.settimeout(0)
        stack.callback(sock.close)
    return sockets


@pytest.fixture
def sockets():
    """Two connected non-blocking sockets, for a server the test plays itself."""
    with contextlib.ExitStack() as stack:
        yield pair(stack)


@pytest.fixture
async def exports():
    """A disk in memory, called "" and "scratch", and a pattern called "pattern"."""

    def spec(name, source, size, **changes):
        return ExportSpec(ElementSpec(source, (("", str(size)),)), name=name, **changes)

    opened = await Exports.open(
        [
            spec("", "memory", SIZE),
            spec("pattern", "pattern", 8 * SIZE, description="each word its offset"),
            spec("scratch", "memory", 8 << 40),
        ],
        keep_going=False,
    )
    yield opened
    await opened.close()


@pytest.fixture
async def dial(exports):
    """Make connections to a server: `dial()` returns the client's socket."""
    async with contextlib.AsyncExitStack() as stack:
        tasks = []

        def connect():
            ours, theirs = pair(stack)
            connection = Connection(theirs, exports, Limits(), peer="test")
            tasks.append(asyncio.create_task(connection.run()))
            return ours

        yield connect
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
