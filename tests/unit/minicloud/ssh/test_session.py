"""What goes through a connection, and what is said when it breaks."""

import asyncio
import socket

import pytest

from minicloud.errors import NodeError, Reason
from sshnodes import Faults, free_port, serving


@pytest.fixture
def faults():
    return Faults()


@pytest.fixture
async def session(home, connector, faults):
    async with serving(faults) as port:
        session = await connector.connect(home.node(port))
        yield session
        await session.close()


@pytest.fixture
async def echo(tmp_path):
    """A Unix socket that gives back what it gets."""

    async def back(reader, writer):
        while piece := await reader.read(1000):
            writer.write(piece)
        writer.close()

    path = tmp_path / "echo"
    async with await asyncio.start_unix_server(back, path):
        yield str(path)


async def test_a_command_gets_its_input_and_gives_both_outputs(session):
    done = await session.run(["sh", "-c", "cat; echo no >&2; exit 3"], stdin=b"\0yes")
    assert (done.status, done.stdout, done.stderr) == (3, b"\0yes", b"no\n")


async def test_a_command_that_does_not_end_is_given_up_and_the_session_goes_on(session):
    with pytest.raises(NodeError, match=r"`sleep` did not end within 0\.2 s") as caught:
        await session.run(["sleep", "1000"], deadline=0.2)
    assert caught.value.reason is Reason.COMMAND
    assert (await session.run(["echo", "on"])).stdout == b"on\n"


async def test_a_message_never_shows_a_commands_arguments(session):
    with pytest.raises(NodeError) as caught:
        await session.run(["sh", "-c", "sleep 1000", "secret"], deadline=0.01)
    assert "secret" not in str(caught.value)


async def test_a_stream_to_a_command(session):
    reader, writer = await session.stream(["cat"])
    writer.write(b"there and back")
    writer.write_eof()
    assert await reader.read() == b"there and back"


async def test_a_unix_socket_of_the_node(session, echo):
    reader, writer = await session.open_unix(echo)
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    writer.close()


async def test_a_unix_socket_that_is_not_there(session, tmp_path):
    with pytest.raises(NodeError) as caught:
        await session.open_unix(str(tmp_path / "none"))
    assert caught.value.reason is Reason.NO_FORWARDING
    assert not session.is_lost


async def test_forwarding_that_is_forbidden(session, faults, echo):
    faults.forwards = False
    with pytest.raises(NodeError, match="sshd_config") as caught:
        await session.open_unix(echo)
    assert caught.value.reason is Reason.NO_FORWARDING


async def test_a_port_nobody_listens_on_at_the_node(session):
    with pytest.raises(NodeError) as caught:
        await session.open_tcp("127.0.0.1", free_port())
    assert caught.value.reason is Reason.REFUSED


async def test_a_path_here_leads_to_a_socket_there(session, echo, tmp_path):
    local = tmp_path / "local"
    await session.serve_unix(str(local), lambda: session.open_unix(echo))
    assert local.stat().st_mode & 0o777 == 0o600
    reader, writer = await asyncio.open_unix_connection(local)
    data = bytes(range(256)) * 4000
    writer.write(data)
    writer.write_eof()
    assert await reader.read() == data
    writer.close()
    await session.close()
    assert not local.exists()


async def test_a_port_here_leads_to_an_address_there(session):
    async def greet(reader, writer):
        writer.write(b"hello")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = await session.forward_port("127.0.0.1", server.sockets[0].getsockname()[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b"hello"
        writer.close()


async def test_a_path_here_whose_far_end_is_not_there_ends_and_keeps_the_error(session, tmp_path):
    tunnel = await session.serve_unix(
        str(tmp_path / "local"), lambda: session.open_unix(str(tmp_path / "none"))
    )
    reader, writer = await asyncio.open_unix_connection(tunnel.path)
    assert await reader.read() == b""
    writer.close()
    assert tunnel.error.reason is Reason.NO_FORWARDING


async def test_a_lost_connection_is_told_by_whoever_waits_on_it(session, faults):
    waiting = asyncio.create_task(session.run(["sleep", "1000"]))
    await faults.began.wait()
    faults.connections[0].abort()
    with pytest.raises(NodeError) as caught:
        await waiting
    assert caught.value.reason is Reason.SSH_LOST
    assert session.is_lost
    for attempt in (session.run(["true"]), session.open_unix("/x"), session.open_tcp("h", 1)):
        with pytest.raises(NodeError) as caught:
            await attempt
        assert caught.value.reason is Reason.SSH_LOST


async def test_a_connection_lost_in_the_middle_is_told_by_a_stream_through_it(
    session, faults, echo
):
    (reader, writer), (lines, _) = await session.open_unix(echo), await session.stream(["cat"])
    waiting = [asyncio.create_task(one) for one in (reader.read(), lines.readline())]
    await asyncio.sleep(0)
    faults.connections[0].abort()
    for task in waiting:
        with pytest.raises(NodeError) as caught:
            await task
        assert caught.value.reason is Reason.SSH_LOST
    with pytest.raises(NodeError):
        await writer.drain()


async def test_cutting_frees_whoever_reads_at_a_path_here(session, tmp_path):
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent"))
        silent.listen()
        there = str(tmp_path / "silent")
        await session.serve_unix(str(tmp_path / "local"), lambda: session.open_unix(there))
        reader, writer = await asyncio.open_unix_connection(tmp_path / "local")
        waiting = asyncio.create_task(reader.read())
        await asyncio.sleep(0)
        session.cut()
        assert await waiting == b""
        writer.close()


async def test_many_commands_at_once_do_not_exceed_what_sshd_allows(session, faults):
    done = await asyncio.gather(*(session.run(["echo", str(n)]) for n in range(20)))
    assert [one.stdout for one in done] == [b"%d\n" % n for n in range(20)]
