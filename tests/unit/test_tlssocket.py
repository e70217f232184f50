"""A TLS session over a socket pair: nothing lost, nothing twice, nothing forgotten."""

import asyncio
import contextlib
import itertools
import random
import socket
import ssl

import pytest

from certificates import Authority
from nbdserve.tlssocket import TlsSocket


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    """A server's and a client's."""
    folder = tmp_path_factory.mktemp("pki")
    authority = Authority(folder / "ca")
    authority.issue(folder / "server", "server")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server/server-cert.pem", folder / "server/server-key.pem")
    server.num_tickets = 0  # as nbdserve has it; else the client has something left to read
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(authority.certificate)
    return server, client


@contextlib.asynccontextmanager
async def session(contexts):
    """Both ends of a session."""
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        there.setblocking(False)
        yield await asyncio.gather(
            TlsSocket.handshake(here, contexts[0], server_side=True),
            TlsSocket.handshake(there, contexts[1], server_side=False, server_hostname="localhost"),
        )


def received(tls, most=1 << 20):
    """All that is there, by a buffer of some size."""
    view, found = memoryview(bytearray(most)), b""
    while True:
        try:
            count = tls.recv_into(view)
        except BlockingIOError:
            assert not tls.pending
            return found
        if not count:
            return found
        found += view[:count]


@pytest.mark.parametrize("sizes", [[28] * 64, [16, 4096] * 40, [1 << 16], [16, 1 << 20, 3]])
async def test_what_a_full_socket_did_not_take_follows_in_order(contexts, sizes):
    """The outbox's part: what was not counted is given again, whatever follows it by then."""
    made = random.Random(1)
    whole = [made.randbytes(size) for size in sizes * 3]
    async with session(contexts) as (server, client):
        kept, found = [memoryview(one) for one in whole], b""
        while kept:
            try:
                sent = server.sendmsg(kept[: made.randrange(1, 9)])
            except BlockingIOError:
                more = received(client)
                assert more
                found += more
                continue
            while sent:
                taken = min(sent, len(kept[0]))
                sent -= taken
                kept[0] = kept[0][taken:]
                if not kept[0]:
                    kept.pop(0)
        assert found + received(client) == b"".join(whole)


async def test_what_is_decrypted_but_does_not_fit_is_pending(contexts):
    async with session(contexts) as (server, client):
        client.sendmsg([bytes(range(200))])
        view = memoryview(bytearray(64))
        assert server.recv_into(view) == 64
        for _ in range(3):
            assert server.pending
            count = server.recv_into(view)
        assert count == 200 - 3 * 64
        assert not server.pending
        with pytest.raises(BlockingIOError):
            server.recv_into(view)


async def test_many_records_come_by_one_receive(contexts):
    async with session(contexts) as (server, client):
        for _ in range(50):
            client.sendmsg([bytes(28)])
        assert server.recv_into(memoryview(bytearray(1 << 16))) == 50 * 28


async def test_a_goodbye_is_told_from_a_cut(contexts):
    view = memoryview(bytearray(64))
    async with session(contexts) as (server, client):
        client.sendmsg([b"last"])
        await client.close_notify()
        assert received(server) == b"last"
        assert server.recv_into(view) == 0
    async with session(contexts) as (server, client):
        client.sendmsg([b"last"])
        client._sock.close()
        assert server.recv_into(view) == 4
        with pytest.raises(ConnectionResetError, match="without a close_notify"):
            server.recv_into(view)


async def test_bytes_that_were_changed_on_the_way_end_the_session(contexts):
    async with session(contexts) as (server, client):
        client._sock.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(OSError, match="TLS"):
            server.recv_into(memoryview(bytearray(64)))


async def test_either_end_may_speak_first_during_the_haggling(contexts):
    async with session(contexts) as (server, client):
        for turn, (one, other) in enumerate(itertools.islice(
            itertools.cycle([(server, client), (client, server)]), 6
        )):  # fmt: skip
            await one.sendall(bytes([turn]) * 70_000)
            found = b""
            while len(found) < 70_000:
                found += await other.recv(16 << 10)
            assert found == bytes([turn]) * 70_000
