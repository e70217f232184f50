"""The end of a connection: before it began, and by the kernel's own time-out."""

import asyncio
import errno
import os
import socket

import pytest

from nbdserve.server.connection import Connection
from nbdserve.server.exports import Exports
from nbdserve.server.limits import Limits


@pytest.fixture
def pair():
    pair = socket.socketpair()
    for sock in pair:
        sock.setblocking(False)
    yield pair
    for sock in pair:
        sock.close()


async def test_one_that_is_aborted_before_it_began_ends_at_once(pair):
    ours, theirs = pair
    connection = Connection(theirs, Exports([]), Limits(handshake_timeout=600), peer="test")
    running = asyncio.create_task(connection.run())
    connection.abort()
    async with asyncio.timeout(30):
        await running
    assert ours.recv(1) == b"", "it was not even greeted"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)), "client vanished"),
        (TimeoutError(), "handshake timed out"),
    ],
)
async def test_a_peer_that_the_kernel_gave_up_is_told_as_gone(
    pair, caplog, monkeypatch, error, told
):
    caplog.set_level("INFO")
    connection = Connection(pair[1], Exports([]), Limits(), peer="test")

    async def fail():
        raise error

    monkeypatch.setattr(connection, "_haggle", fail)
    await connection.run()
    assert told in caplog.text
