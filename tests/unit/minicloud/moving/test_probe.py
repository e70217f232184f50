"""What a node finds of addresses, bridges and files: the command run here, its output read."""

import shutil
import socket
import subprocess
import sys

import pytest

from minicloud.moving.probe import Probe, Reach, parse_probe, probe_command

# as printed by bash 5.2, Python 3.11 and nc (OpenBSD, BusyBox) in the C locale
SAID = [
    ("tcp h 1 0 ", Reach.OPEN),
    ("tcp h 1 1 bash: connect: Connection refused bash: line 1: /dev/tcp/h/1: Connection refused",
     Reach.REFUSED),
    ("tcp h 1 1 bash: connect: No route to host", Reach.NO_ROUTE),
    ("tcp h 1 1 bash: connect: Network is unreachable", Reach.NO_ROUTE),
    ("tcp h 1 1 bash: h: Name or service not known bash: line 1: /dev/tcp/h/1: Invalid argument",
     Reach.NO_NAME),
    ("tcp h 1 1 bash: h: Temporary failure in name resolution", Reach.NO_NAME),
    ("tcp h 1 124 ", Reach.SILENT),
    ("tcp h 1 1 [Errno 111] Connection refused", Reach.REFUSED),
    ("tcp h 1 1 timed out", Reach.SILENT),
    ("tcp h 1 1 [Errno -2] Name or service not known", Reach.NO_NAME),
    ("tcp h 1 1 nc: connect to h port 1 (tcp) failed: Connection refused", Reach.REFUSED),
    ("tcp h 1 1 nc: h (10.0.0.1:1): Connection timed out", Reach.SILENT),
    ("tcp h 1 3 no tool", Reach.UNKNOWN),
]  # fmt: skip


@pytest.mark.parametrize(("line", "reach"), SAID)
def test_what_each_tool_says_is_understood(line, reach):
    assert parse_probe(line).addresses == {("h", 1): reach}


def test_lines_of_others_are_passed_over():
    text = "Welcome to ham1\ntcp h not-a-port 0\nbridge yes br0\nfile no /boot/a b\n\n"

    assert parse_probe(text) == Probe(bridges={"br0": True}, files={"/boot/a b": False})


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()


@pytest.fixture
def refusing():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        server.close()
        return address


def run(command, path):
    done = subprocess.run(
        [shutil.which(command[0]), *command[1:]], capture_output=True, text=True, timeout=30,
        check=True, env={"PATH": str(path)},
    )  # fmt: skip
    assert done.stderr == ""
    return parse_probe(done.stdout)


TOOLS = [("bash", "timeout"), ("python3",), ("nc",)]


@pytest.mark.parametrize("tools", TOOLS, ids=[tools[0] for tools in TOOLS])
def test_a_node_with_only_one_tool_finds_out_all_the_same(tools, tmp_path, listener, refusing):
    for tool in tools:
        found = sys.executable if tool == "python3" else shutil.which(tool)
        # a wrapper, since an interpreter finds its home by where it lies
        (tmp_path / tool).write_text(f'#!/bin/sh\nexec {found} "$@"\n')
        (tmp_path / tool).chmod(0o755)

    probe = run(probe_command([listener, refusing]), tmp_path)

    assert probe.addresses == {listener: Reach.OPEN, refusing: Reach.REFUSED}


def test_a_node_without_any_tool_says_so(tmp_path, listener):
    assert run(probe_command([listener]), tmp_path).addresses == {listener: Reach.UNKNOWN}


def test_files_and_bridges_are_looked_for(tmp_path):
    there = tmp_path / "a kernel"
    there.write_text("x")
    missing = tmp_path / "none"

    probe = run(probe_command((), ["no-such-bridge"], [str(there), str(missing)]), tmp_path)

    assert probe.files == {str(there): True, str(missing): False}
    assert probe.bridges == {"no-such-bridge": False}
