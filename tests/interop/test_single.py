"""`--single` over pipes, as ssh and shell pipelines make them, by the real command."""

import struct
import subprocess

import pytest

from daemon import nbdserve_argv
from nbdserve.protocol.constants import Command
from nbdserve.protocol.messages import Request
from nbdserve.protocol.requests import encode_request


def test_single_over_pipes_delivers_the_last_replies(tmp_path):
    """Mistake (12): what DISC leaves unread must be out before the process ends."""
    argv = nbdserve_argv("--single", "--pid-file", tmp_path / "pid", "pattern", "1M")
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    hello = struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 1, 0)
    requests = [Request(0, Command.READ, 1, 0, 500_000), Request(0, Command.DISC, 2, 0, 0)]
    process.stdin.write(hello + b"".join(encode_request(r, extended=False) for r in requests))
    process.stdin.flush()
    while b"connection closed" not in process.stderr.readline():
        pass
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)  # nobody has read yet, so it may not end, however long that takes
    received, _ = process.communicate(timeout=60)
    assert len(received) == 18 + 10 + 16 + 500_000
    assert process.returncode == 0
    assert not (tmp_path / "pid").exists()
