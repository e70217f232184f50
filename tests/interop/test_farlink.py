"""The far link of the benchmarks: real namespaces, the kernel's TCP, and nothing left behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from remote.farlink import SERVER, FarLink, farlink, own_name
from remote.processes import running

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/net/tun").exists(),
    reason="network namespaces and TUN devices need root and /dev/net/tun",
)

NAME = own_name("test")  # the suite may run twice at once

LISTEN = f"""
import socket
server = socket.create_server(("{SERVER}", 7000))
print("listening", flush=True)
peer, _ = server.accept()
with peer:
    while data := peer.recv(65536):
        peer.sendall(data)
"""
ASK = f"""
import socket, time
peer = socket.create_connection(("{SERVER}", 7000))
began = time.monotonic()
peer.sendall(b"x")
peer.recv(1)
print(time.monotonic() - began)
data, back = bytes(range(256)) * 1024, b""
peer.sendall(data)
while len(back) < len(data):
    back += peer.recv(65536)
assert back == data
"""


def test_an_answer_takes_a_round_trip_and_arrives_whole(tmp_path):
    with farlink(FarLink(NAME, rtt=60, mbit=80)) as link:
        listen = [*link.server, sys.executable, "-c", LISTEN]
        with running(listen, log=tmp_path / "log", stdout=subprocess.PIPE) as server:
            assert server.stdout.readline() == b"listening\n"
            asked = subprocess.run(
                [*link.client, sys.executable, "-c", ASK],
                capture_output=True, text=True, check=True, timeout=120,
            )  # fmt: skip
    assert float(asked.stdout) >= 0.060


def test_nothing_is_left_of_a_link():
    with farlink(FarLink(NAME)):
        assert Path("/run/netns", f"{NAME}-srv").exists()
    assert not list(Path("/run/netns").glob(f"{NAME}*"))
    assert not Path(f"/run/{NAME}.pid").exists()


def test_a_link_that_was_left_behind_makes_way():
    left = FarLink(NAME).start()
    with farlink(FarLink(NAME)):
        assert left.wait(60) == 0


def test_a_link_of_a_process_that_is_gone_is_taken_down():
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = FarLink(f"test-{ended.pid}").start()
    assert own_name("test") == NAME
    assert left.wait(60) == 0
    assert not list(Path("/run/netns").glob(f"test-{ended.pid}*"))
