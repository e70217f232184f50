"""Reads of what is not in the page cache, by real clients: right bytes, or the error due."""

import os
import subprocess

import pytest

from daemon import daemon
from tools import ENVIRONMENT

SIZE = 16 << 20
MANY = f"""
import nbd
for at in range(0, {SIZE}, 65536):
    h.aio_pread(nbd.Buffer(4096), at)
print("begun", flush=True)
while True: h.poll(-1)
"""


@pytest.fixture
def cold(tmp_path):
    """A file of which the page cache holds nothing."""
    path = tmp_path / "cold.img"
    path.write_bytes(os.urandom(SIZE))
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    return path


def run(*argv, **options):
    return subprocess.run(
        [str(word) for word in argv], capture_output=True, text=True, timeout=120, check=True,
        env=ENVIRONMENT, **options,
    ).stdout  # fmt: skip


@pytest.mark.parametrize(("layers", "workers"), [((), 1), (("slice", "cow"), 1), ((), 2)])
def test_a_copy_in_small_requests_is_the_original(cold, tmp_path, layers, workers):
    words = [word for layer in layers for word in ("--layer", layer)]
    with daemon(*words, "file", cold, options=["-r", "--workers", workers]) as server:
        run("nbdcopy", "--request-size=4096", "--requests=64", server.uri(), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == cold.read_bytes()


def test_what_a_file_has_lost_is_an_error_and_the_rest_is_served(cold):
    want = cold.read_bytes()[:4096].hex()
    with daemon("file", cold, options=["-r"]) as server:
        os.truncate(cold, SIZE // 2)
        script = f"""
for at in range({SIZE} - 64 * 4096, {SIZE}, 4096):
    try:
        h.pread(4096, at)
    except nbd.Error as error:
        assert error.errnum == errno.EIO, error
    else:
        raise SystemExit("bytes out of nowhere")
assert h.pread(4096, 0).hex() == "{want}"
"""
        run("nbdsh", "-u", server.uri(), "-c", "import errno\n" + script)
        assert "shrank while open" in server.log


def test_a_client_that_is_killed_amid_cold_reads_leaves_a_server_that_serves(cold, tmp_path):
    with daemon("file", cold, options=["-r"]) as server:
        for _ in range(5):
            fd = os.open(cold, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)
            with subprocess.Popen(
                ["nbdsh", "-u", server.uri(), "-c", MANY], stdout=subprocess.PIPE, env=ENVIRONMENT
            ) as client:
                assert client.stdout.readline() == b"begun\n"
                client.kill()
        run("nbdcopy", server.uri(), tmp_path / "copy")
        assert server.terminate() == 0
    assert (tmp_path / "copy").read_bytes() == cold.read_bytes()
