"""A thousand idle clients and 256 busy ones at once, and what an idle one costs."""

import os
import resource
import socket
import struct
from contextlib import ExitStack
from pathlib import Path

import pytest

from daemon import daemon
from nbdserve.protocol.constants import Command
from nbdserve.protocol.messages import Request
from nbdserve.protocol.requests import encode_request

IDLE, BUSY, DEPTH = 1000, 256, 8
MOST_IDLE = 256 << 10


@pytest.fixture(autouse=True)
def descriptors():
    """Let this process, and it alone, have as many descriptors as it needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def as_the_service_manager_does():
    """Start the server with the usual soft limit of 1024."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))


def receive(sock, count):
    found = b""
    while len(found) < count:
        more = sock.recv(count - len(found))
        assert more, "the server hung up"
        found += more
    return found


def connect(server):
    """Connect and choose the export, with simple replies."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(120)
    sock.connect(os.fspath(server.socket))
    receive(sock, 18)
    sock.sendall(struct.pack(">IQIIIH", 3, 0x49484156454F5054, 7, 6, 0, 0))
    kind = None
    while kind != 1:
        _, _, kind, length = struct.unpack(">QIII", receive(sock, 20))
        receive(sock, length)
    return sock


def ask(sock, blocks):
    sock.sendall(
        b"".join(
            encode_request(Request(0, Command.READ, n, n * 4096, 4096), extended=False)
            for n in blocks
        )
    )


def check(sock, blocks):
    answers = {}
    for _ in blocks:
        _, error, cookie = struct.unpack(">IIQ", receive(sock, 16))
        assert error == 0
        answers[cookie] = receive(sock, 4096)
    assert answers == {n: struct.pack(">Q", n) * 512 for n in blocks}


def resident(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmRSS")


def test_a_thousand_idle_clients_and_256_busy_ones(tmp_path):
    image = tmp_path / "disk.img"
    image.write_bytes(b"".join(struct.pack(">Q", n) * 512 for n in range(2048)))
    options = ["--read-only", "--max-connections", "1300"]
    with ExitStack() as stack:
        server = stack.enter_context(
            daemon("file", image, options=options, preexec_fn=as_the_service_manager_does)
        )
        first = stack.enter_context(connect(server))
        ask(first, [0])
        check(first, [0])
        before = resident(server.process.pid)
        clients = [stack.enter_context(connect(server)) for _ in range(IDLE + BUSY)]
        for number, sock in enumerate(clients):  # each has been busy once
            ask(sock, [number % 2048])
        for number, sock in enumerate(clients):
            check(sock, [number % 2048])
        each = (resident(server.process.pid) - before) / len(clients)
        print(f"an idle connection has {each / 1024:.1f} KiB")
        assert each < MOST_IDLE
        for turn in range(3):
            work = [
                (sock, [(n * 31 + turn * 7 + k) % 2048 for k in range(DEPTH)])
                for n, sock in enumerate(clients[IDLE:])
            ]
            for sock, blocks in work:
                ask(sock, blocks)
            for sock, blocks in work:
                check(sock, blocks)
