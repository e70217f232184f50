"""The test client against the server's connection, and against a server the test plays."""

import asyncio
import socket
import struct

import pytest

from answering import Answering, facts
from nbdserve.errors import ProtocolError
from nbdserve.extents import DATA, ZERO_HOLE, Extent
from nbdserve.protocol.constants import Command, CommandFlag, Option, OptionReply, WireError
from nbdserve.protocol.messages import ReplyMode
from nbdserve.protocol.option_replies import Listing, MetaContext
from nbdserve.protocol.options import InfoRequest, MetaRequest
from nbdserve.protocol.reply_chunks import DataChunk, HoleChunk
from nbdserve.server.connection import Connection
from nbdserve.server.limits import Limits
from nbdserve.testing.client import Client, RemoteError, open_tcp, open_unix
from nbdserve.testing.haggler import Haggler, RefusedError

MODES = pytest.mark.parametrize("mode", list(ReplyMode))


def words(offset, length):
    return b"".join(struct.pack(">Q", at) for at in range(offset, offset + length, 8))


# Requests


@MODES
async def test_what_is_written_is_read(dial, mode):
    async with await Client.from_socket(dial(), mode=mode) as client:
        assert client.mode is mode
        await client.write(4096, b"hello" * 100, CommandFlag.FUA)
        await client.flush()
        assert await client.read(4096, 500) == b"hello" * 100


@MODES
async def test_every_command_is_answered(dial, mode):
    async with await Client.from_socket(dial(), mode=mode) as client:
        await client.write(0, b"x" * 8192)
        await client.write_zeroes(0, 4096, CommandFlag.NO_HOLE)
        await client.trim(4096, 4096)
        await client.cache(0, 8192)
        await client.flush()
        assert await client.read(0, 4096) == bytes(4096)
        assert await client.read(0, 0) == b""


@pytest.mark.parametrize("mode", [ReplyMode.STRUCTURED, ReplyMode.EXTENDED])
async def test_extents_are_told(dial, mode):
    async with await Client.from_socket(dial(), mode=mode) as client:
        await client.write(0, b"x" * 65536)
        extents = await client.block_status(0, 1 << 20)
        assert extents == (Extent(65536, DATA), Extent((1 << 20) - 65536, ZERO_HOLE))
        assert len(await client.block_status(0, 1 << 20, CommandFlag.REQ_ONE)) == 1


async def test_extended_headers_carry_64_bit_lengths(dial):
    async with await Client.from_socket(dial(), export="scratch") as client:
        await client.write_zeroes(0, 6 << 40)
        assert await client.block_status(0, 8 << 40) == (Extent(8 << 40, ZERO_HOLE),)


async def test_the_chunks_of_a_read_are_told(dial):
    async with await Client.from_socket(dial(), mode=ReplyMode.STRUCTURED) as client:
        hole = await client.request(Command.READ, 0, 4096)
        assert hole.chunks == (HoleChunk(0, 4096),)
        assert hole.data == bytes(4096)
        whole = await client.request(Command.READ, 0, 4096, flags=CommandFlag.DF)
        assert whole.chunks == (DataChunk(0, 4096),)


async def test_a_read_lands_in_the_memory_given(dial):
    memory = bytearray(4096)
    async with await Client.from_socket(dial(), export="pattern") as client:
        await client.request(Command.READ, 8192, 4096, into=memoryview(memory))
    assert memory == words(8192, 4096)


@MODES
async def test_requests_are_pipelined_and_matched_by_cookie(dial, mode):
    async with await Client.from_socket(dial(), export="pattern", mode=mode) as client:
        async with asyncio.TaskGroup() as group:
            reads = [group.create_task(client.read(n * 512, 40_000)) for n in range(100)]
        assert [task.result() for task in reads] == [words(n * 512, 40_000) for n in range(100)]


@MODES
async def test_a_remote_error_has_a_number_and_its_text(dial, mode):
    async with await Client.from_socket(dial(), export="pattern", mode=mode) as client:
        with pytest.raises(RemoteError, match="answered error 1") as caught:
            await client.write(0, b"x")
        assert caught.value.error == WireError.EPERM
        assert bool(caught.value.text) is (mode is not ReplyMode.SIMPLE)


async def test_any_command_may_be_sent(dial):
    async with await Client.from_socket(dial()) as client:
        reply = await client.request(77, 1, 2, flags=0xFF00 & ~CommandFlag.PAYLOAD_LEN)
        assert reply.error.error == WireError.EINVAL


async def test_a_cancelled_request_leaves_the_client_usable(dial):
    async with await Client.from_socket(dial(), export="pattern") as client:
        for _ in range(20):
            read = asyncio.create_task(client.read(0, 4096))
            await asyncio.sleep(0)
            read.cancel()
            with pytest.raises(asyncio.CancelledError):
                await read
        assert await client.read(8, 8) == words(8, 8)


# The handshake


async def test_what_the_server_told_of_the_export_is_kept(dial):
    async with await Client.from_socket(dial(), export="pattern") as client:
        assert client.export.description == "each word its offset"
        assert client.export.size == 8 << 20
        assert client.contexts == (MetaContext(1, "base:allocation"),)


async def test_no_contexts_need_be_selected(dial):
    async with await Client.from_socket(dial(), contexts=()) as client:
        assert client.contexts == ()
        with pytest.raises(RemoteError, match="no meta context"):
            await client.block_status(0, 4096)


async def test_a_refused_export_is_an_error_with_the_servers_words(dial):
    with pytest.raises(RefusedError, match=r"GO was refused with ERR_UNKNOWN: .*missing") as caught:
        await Client.from_socket(dial(), export="missing")
    assert caught.value.answer.reply == OptionReply.ERR_UNKNOWN


async def test_options_may_be_asked_one_by_one(dial):
    haggler = await Haggler.greet(dial())
    listed = await haggler.ask(Option.LIST)
    assert Listing("pattern", "each word its offset") in listed.exports
    told = await haggler.ask_info(InfoRequest("pattern", (1, 2, 3)))
    assert told.export.size == 8 << 20
    assert (await haggler.ask(Option.STRUCTURED_REPLY)).is_accepted
    contexts = await haggler.ask_meta(Option.LIST_META_CONTEXT, MetaRequest(""))
    assert contexts.contexts == (MetaContext(0, "base:allocation"),)
    assert (await haggler.ask(Option.ABORT)).is_accepted


@pytest.mark.parametrize("greeting", [b"", b"NBDMAGIC"])
async def test_a_server_that_closes_early_is_a_connection_error(sockets, greeting):
    ours, theirs = sockets
    theirs.send(greeting)
    theirs.close()
    with pytest.raises(ConnectionResetError, match="during the handshake"):
        await Client.from_socket(ours)
    assert ours.fileno() == -1


# Sockets


async def serve_one(listening, exports):
    """Serve the first client that connects."""
    listening.listen()
    sock, _ = await asyncio.get_running_loop().sock_accept(listening)
    await Connection(sock, exports, Limits(), peer="test").run()


async def test_it_connects_to_a_unix_socket(tmp_path, exports):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.settimeout(0)
        listening.bind(str(tmp_path / "nbd.sock"))
        async with asyncio.TaskGroup() as group:
            group.create_task(serve_one(listening, exports))
            await asyncio.sleep(0)
            async with await Client.connect_unix(tmp_path / "nbd.sock") as client:
                assert client.export.size == 1 << 20


async def test_it_connects_to_a_tcp_port(exports):
    with socket.socket() as listening:
        listening.settimeout(0)
        listening.bind(("127.0.0.1", 0))
        async with asyncio.TaskGroup() as group:
            group.create_task(serve_one(listening, exports))
            await asyncio.sleep(0)
            host, port = listening.getsockname()
            async with await Client.connect_tcp(host, port, export="pattern") as client:
                assert await client.read(8, 8) == words(8, 8)


async def test_a_server_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        await open_unix(tmp_path / "missing.sock")
    with pytest.raises(ConnectionRefusedError):
        await open_tcp("127.0.0.1", 1)


# Raw access, and servers that break rules


async def played(sockets, trailing=b""):
    """A client of a server the test plays: (client, the server's socket)."""
    ours, theirs = sockets
    loop = asyncio.get_running_loop()
    server = Answering(facts(""))
    await loop.sock_sendall(theirs, server.greeting)
    connecting = asyncio.create_task(Client.from_socket(ours, mode=ReplyMode.STRUCTURED))
    while not server.is_ready:
        sent = server.feed(await loop.sock_recv(theirs, 4096))
        await loop.sock_sendall(theirs, sent + (trailing if server.is_ready else b""))
    return await connecting, theirs


async def test_raw_bytes_may_be_sent_and_received(dial):
    client = await Client.from_socket(dial(), mode=ReplyMode.SIMPLE)
    await client.send_raw(struct.pack(">IHHQQI", 0x25609513, 0, Command.FLUSH, 42, 0, 0))
    assert await client.recv_exactly(16) == struct.pack(">IIQ", 0x67446698, 0, 42)
    await client.send_raw(struct.pack(">IHHQQI", 0x25609513, 0, Command.DISC, 43, 0, 0))
    with pytest.raises(EOFError):
        await client.recv_exactly(1)
    await client.close()


async def test_raw_bytes_cannot_be_received_beside_replies(dial):
    async with await Client.from_socket(dial()) as client:
        await client.flush()
        with pytest.raises(RuntimeError, match="received already"):
            await client.recv_exactly(1)


async def test_bytes_that_came_with_the_handshake_are_not_lost(sockets):
    client, _ = await played(sockets, trailing=b"early")
    assert await client.recv_exactly(5) == b"early"
    await client.close()


async def test_a_server_that_breaks_the_protocol_fails_every_request(sockets):
    client, theirs = await played(sockets)
    async with asyncio.TaskGroup() as group:
        requests = [group.create_task(fails(client.flush(), ProtocolError)) for _ in range(3)]
        await asyncio.sleep(0)
        theirs.send(b"HTTP/1.1 400 Bad Request")
    assert len(requests) == 3
    await fails(client.flush(), ProtocolError)
    await client.close()


async def test_a_server_that_closes_fails_every_request(sockets):
    client, theirs = await played(sockets)
    async with asyncio.TaskGroup() as group:
        group.create_task(fails(client.read(0, 1), ConnectionResetError))
        group.create_task(fails(client.flush(), ConnectionResetError))
        await asyncio.get_running_loop().sock_recv(theirs, 1000)
        theirs.close()
    await client.close()


async def test_closing_fails_requests_under_way(sockets):
    client, _ = await played(sockets)
    async with asyncio.TaskGroup() as group:
        group.create_task(fails(client.read(0, 1), ConnectionResetError))
        await asyncio.sleep(0)
        await client.close()


async def test_leaving_by_an_error_closes_without_disc(sockets):
    client, theirs = await played(sockets)
    with pytest.raises(LookupError):
        async with client:
            raise LookupError
    assert await asyncio.get_running_loop().sock_recv(theirs, 1000) == b""


async def test_leaving_sends_disc_and_waits_for_the_server(sockets):
    client, theirs = await played(sockets)
    leaving = asyncio.create_task(client.disconnect())
    sent = await asyncio.get_running_loop().sock_recv(theirs, 1000)
    assert struct.unpack(">IHHQQI", sent)[:3] == (0x25609513, 0, Command.DISC)
    assert not leaving.done()
    theirs.close()
    await leaving


async def test_a_request_that_was_cut_short_ends_the_connection(sockets):
    client, _ = await played(sockets)
    writing = asyncio.create_task(client.write(0, bytes(32 << 20)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await fails(client.flush(), ConnectionResetError)
    await client.close()


async def fails(request, error):
    with pytest.raises(error):
        await request
