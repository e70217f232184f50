"""A server that is killed amid FUA writes of a real client has kept all it acknowledged."""

import struct
import subprocess
import textwrap

import pytest

from daemon import daemon
from tools import ENVIRONMENT

BLOCK = 4096
BLOCKS = 4096

# 64 writes under way; the number of each is printed once it was acknowledged
CLIENT = f"""
import os, struct
def block(n):
    return struct.pack(">QQ", n, ~n & (1 << 64) - 1) * ({BLOCK} // 16)
def write(n):
    def done(error):
        if not error.value:
            os.write(1, b"%d\\n" % n)
        return 1
    place = n * 2654435761 % {BLOCKS}  # each once, all over the disk
    h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(block(place))), place * {BLOCK},
                 completion=done, flags=nbd.CMD_FLAG_FUA)
for n in range({BLOCKS}):
    while h.aio_in_flight() >= 64:
        h.poll(-1)
    write(n)
while h.aio_in_flight():
    h.poll(-1)
"""


def content(place):
    return struct.pack(">QQ", place, ~place & (1 << 64) - 1) * (BLOCK // 16)


@pytest.mark.parametrize("layers", [[], ["--layer", "cow:path=OVERLAY,cluster=4K"]])
@pytest.mark.parametrize("acknowledged", [1, 700, 2500])
def test_every_acknowledged_fua_write_is_there_after_kill(tmp_path, layers, acknowledged):
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(BLOCKS * BLOCK)
    chain = [word.replace("OVERLAY", str(tmp_path / "disk.cow")) for word in layers]
    with daemon(*chain, "file", image) as server:
        client = subprocess.Popen(
            ["nbdsh", "-u", server.uri(), "-c", textwrap.dedent(CLIENT)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=ENVIRONMENT,
        )  # fmt: skip
        with client:
            lines = [client.stdout.readline() for _ in range(acknowledged)]
            server.kill()
            lines += client.stdout.readlines()
    told = [int(line) * 2654435761 % BLOCKS for line in lines]
    assert len(told) >= acknowledged
    assert len(told) < BLOCKS, "it was killed too late to show anything"
    with daemon(*chain, "--read-only", "file", image) as server:
        found = subprocess.run(
            ["nbdcopy", server.uri(), "-"], stdout=subprocess.PIPE, check=True, env=ENVIRONMENT
        ).stdout
    lost = [n for n in told if found[n * BLOCK : (n + 1) * BLOCK] != content(n)]
    assert lost == []
