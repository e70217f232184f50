"""The control socket's driver: who may talk, in what bounds, and what a client's leaving does."""

import asyncio
import errno
import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from nbdserve.control.codec import LONGEST_REQUEST
from nbdserve.control.messages import CommandError, FailureKind
from nbdserve.errors import DeviceError
from nbdserve.server import control
from nbdserve.server.control import ControlServer
from nbdserve.settings import UnixListener


class Commands:
    """Commands whose ends the test decides."""

    def __init__(self):
        self.begun = asyncio.Semaphore(0)
        self.cancelled = asyncio.Event()
        self.ended = asyncio.Event()
        self.go_on = asyncio.Event()
        self.requests = []

    async def carry_out(self, request, report):
        self.requests.append(request)
        self.begun.release()
        match request.command:
            case "echo":
                return request.arguments
            case "wait":
                try:
                    await self.go_on.wait()
                except asyncio.CancelledError:
                    self.cancelled.set()
                    raise
                return {}
            case "flood":
                try:
                    while True:
                        await report({"text": "x" * 10_000})
                finally:
                    self.ended.set()
            case "device":
                raise DeviceError("the mirror is away")
            case "os":
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/some/file")
            case "broken":
                raise ZeroDivisionError("oops")
        raise CommandError(FailureKind.COMMAND, "unknown")


@pytest.fixture
async def commands():
    return Commands()


@pytest.fixture
def public():
    """A folder that other users reach; pytest closes those above its own."""
    with tempfile.TemporaryDirectory(prefix="nbdserve-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
async def path(tmp_path, commands):
    path = tmp_path / "control.sock"
    async with ControlServer(UnixListener(path, 0o600), commands):
        yield path
    assert not path.exists()


class Client:
    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    def send(self, command, number=1, **arguments):
        fields = {"v": 1, "id": number, "command": command, "arguments": arguments}
        self.writer.write(json.dumps(fields).encode() + b"\n")

    async def reply(self):
        line = await self.reader.readline()
        return json.loads(line) if line else None


@pytest.fixture
async def connect(path):
    clients = []

    async def connect():
        clients.append(Client(*await asyncio.open_unix_connection(path)))
        return clients[-1]

    yield connect
    for client in clients:
        client.writer.close()


async def test_only_its_user_may_open_the_socket(path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_requests_are_answered_in_order_and_by_their_ids(connect):
    client = await connect()
    for number in range(5):
        client.send("echo", number, a=number)
    for number in range(5):
        assert await client.reply() == {"v": 1, "id": number, "result": {"a": number}}


@pytest.mark.parametrize(
    ("command", "kind", "text"),
    [
        ("what", "unknown-command", "unknown"),
        ("device", "device", "the mirror is away"),
        ("os", "device", "/some/file: Permission denied"),
        ("broken", "internal", "ZeroDivisionError: oops"),
    ],
)
async def test_a_failure_has_its_kind_and_the_client_may_go_on(connect, command, kind, text):
    client = await connect()
    client.send(command, 3)
    client.send("echo", 4)
    assert await client.reply() == {"v": 1, "id": 3, "error": {"kind": kind, "message": text}}
    assert (await client.reply())["id"] == 4


async def test_another_version_is_told_and_the_client_may_go_on(connect):
    client = await connect()
    client.writer.write(b'{"v":9,"command":"echo"}\n')
    client.send("echo")
    assert (await client.reply())["error"]["kind"] == "version"
    assert "result" in await client.reply()


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 50 + b"\n", b"[]\n"])
async def test_noise_is_answered_and_ends_the_client_alone(connect, noise):
    client, other = await connect(), await connect()
    client.writer.write(noise)
    assert (await client.reply())["error"]["kind"] == "request"
    assert await client.reply() is None
    other.send("echo")
    assert "result" in await other.reply()


async def test_a_line_without_end_is_cut_off(connect):
    client = await connect()
    client.writer.write(b"x" * (LONGEST_REQUEST + 100_000))
    assert (await client.reply())["error"]["kind"] == "request"


async def test_a_command_is_cancelled_when_its_client_goes_away(connect, commands):
    client = await connect()
    client.send("wait")
    await commands.begun.acquire()
    client.writer.close()
    await asyncio.wait_for(commands.cancelled.wait(), 30)


async def test_a_client_that_has_said_all_still_gets_its_answer(connect, commands):
    """As `nc -N` and `socat` do: they close their direction and go on reading."""
    client = await connect()
    client.send("wait")
    client.writer.write_eof()
    await commands.begun.acquire()
    for _ in range(20):  # the server sees the end in one of these turns
        await asyncio.sleep(0)
    commands.go_on.set()
    assert "result" in await client.reply()
    assert await client.reply() is None


async def test_requests_behind_a_long_one_are_kept_in_bounds(connect, commands):
    """More than a line's bound is not received while a command runs; the kernel holds it back."""
    client = await connect()
    client.send("wait")
    await commands.begun.acquire()
    many = 20_000
    for number in range(many):
        client.send("echo", number)
    drained = asyncio.ensure_future(client.writer.drain())
    commands.go_on.set()
    for _ in range(many + 1):
        assert "result" in await client.reply()
    await drained


async def test_a_client_that_does_not_read_is_dropped(connect, commands, monkeypatch):
    monkeypatch.setattr(control, "_SEND", 0.05)
    client = await connect()
    client.send("flood")
    other = await connect()
    other.send("echo")
    assert "result" in await other.reply()
    await asyncio.wait_for(commands.ended.wait(), 30)
    while await client.reader.read(1 << 20):
        pass  # what the kernel held, and then its end


async def test_a_client_that_asks_for_nothing_is_dropped(connect, monkeypatch):
    monkeypatch.setattr(control, "_IDLE", 0.05)
    client = await connect()
    assert await client.reply() is None


async def test_clients_over_the_limit_wait_until_others_leave(connect, commands):
    clients = [await connect() for _ in range(control._MOST_CLIENTS)]
    for client in clients:
        client.send("wait")
    for _ in clients:
        await commands.begun.acquire()
    late = await connect()
    late.send("echo")
    clients[0].writer.close()
    assert "result" in await late.reply()


async def test_its_end_cancels_what_is_under_way(tmp_path, commands):
    path = tmp_path / "c"
    async with ControlServer(UnixListener(path, 0o600), commands):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b'{"v":1,"command":"wait"}\n')
        await commands.begun.acquire()
    assert commands.cancelled.is_set()
    assert await reader.read() == b""
    writer.close()


async def test_another_user_is_refused_even_if_the_mode_lets_it_in(public, commands):
    """By the kernel's word on who connected; root's tests can be another user for once."""
    if os.geteuid() != 0:
        pytest.fail("run the tests as root: only root can try to be somebody else")
    async with ControlServer(UnixListener(public / "c", 0o600), commands):
        (public / "c").chmod(0o666)
        assert (await asked_as(public / "c", 65534, 65534))["error"]["kind"] == "permission"
    assert commands.requests == []


@pytest.mark.parametrize(
    ("group", "further", "mode", "told"),
    [
        (33, [], 0o660, "result"),
        (65534, [4, 33], 0o660, "result"),
        (65534, [4], 0o666, "error"),
    ],
)
async def test_the_group_of_a_socket_made_writable_for_it_may_control(
    public, commands, group, further, mode, told
):
    async with ControlServer(UnixListener(public / "c", mode, ":33"), commands):
        reply = await asked_as(public / "c", 65534, group, further)
    assert told in reply
    if told == "error" and mode == 0o666:
        assert "root, group www-data and the user" in reply["error"]["message"]


async def test_the_group_of_all_that_are_unknown_is_nobodys(public, commands):
    """In a user namespace every group that it has no number for is 65534."""
    async with ControlServer(UnixListener(public / "c", 0o660, ":65534"), commands):
        assert "error" in await asked_as(public / "c", 65534, 65534)


async def asked_as(path, user, group, further=()):
    """Ask as another user; return the reply."""
    code = (
        "import os, socket, sys\n"
        "sock = socket.socket(socket.AF_UNIX)\n"
        f"os.setgroups({list(further)}); os.setgid({group}); os.setuid({user})\n"
        "sock.connect(sys.argv[1])\n"
        "try:\n"
        '    sock.sendall(b\'{"v":1,"command":"echo"}\\n\')\n'
        "except OSError:\n"
        "    pass  # it is refused before it has said a word\n"
        "print(sock.recv(4096).decode())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, path, stdout=subprocess.PIPE
    )
    told, _ = await process.communicate()
    return json.loads(told)


async def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path, commands):
    path = tmp_path / "c"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    async with ControlServer(UnixListener(path, 0o600), commands):
        with pytest.raises(DeviceError, match="another server is there"):
            ControlServer(UnixListener(path, 0o600), commands)
