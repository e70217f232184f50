"""The daemon on uvloop and on asyncio's own loop: fio writes, reads back and verifies."""

import subprocess

import pytest

from daemon import daemon
from tools import ENVIRONMENT

SIZE = 64 << 20

CHAINS = {
    "file": [],
    "cow": ["--layer", "cow:cluster=16K"],
    "cache": ["--layer", "cache:size=8M,block=4K"],
    "slice": ["--layer", "slice:offset=1M"],
}


@pytest.fixture(params=["uvloop", "asyncio"])
def loop(request, tmp_path):
    """What to add to the environment so that the daemon runs on this loop."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
        return {}
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "uvloop.py").write_text("raise ImportError('as where it is not installed')\n")
    return {"PYTHONPATH": str(hidden)}


@pytest.mark.parametrize("chain", CHAINS)
def test_fio_verifies_what_it_wrote(tmp_path, loop, chain):
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(SIZE + (1 << 20))
    with daemon(*CHAINS[chain], "file", image, env=loop) as server:
        for block in ("512-256k", "1m-1m"):  # through slabs and tasks; by sendfile and into slabs
            subprocess.run(
                ["fio", "--name=verify", "--ioengine=nbd", f"--uri={server.uri()}", "--size=64M",
                 "--rw=randwrite", f"--bsrange={block}", "--iodepth=32", "--verify=crc32c",
                 "--do_verify=1", "--verify_fatal=1", "--fsync=50", "--io_size=48M"],
                check=True, capture_output=True, timeout=300, env=ENVIRONMENT, cwd=tmp_path,
            )  # fmt: skip
        assert server.terminate() == 0
        assert "error" not in server.log


def test_a_large_image_is_copied_whole(tmp_path, loop):
    """Large reads of a file go by sendfile: the same bytes, also where the client is slow."""
    image = tmp_path / "disk.img"
    data = b"".join(at.to_bytes(8, "big") for at in range(0, 32 << 20, 8))
    image.write_bytes(data)
    with daemon("--read-only", "file", image, env=loop) as server:
        for requests in ("1", "16"):
            copied = subprocess.run(
                ["nbdcopy", f"--requests={requests}", "--request-size=1048576", server.uri(), "-"],
                stdout=subprocess.PIPE, check=True, timeout=300, env=ENVIRONMENT,
            )  # fmt: skip
            assert copied.stdout == data
