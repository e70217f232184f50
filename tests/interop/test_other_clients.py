"""fio with verification, and nbd-client's listing, against a running nbdserve."""

import socket
import subprocess

import pytest

from daemon import daemon


@pytest.mark.parametrize("layers", [[], ["--layer", "cow"], ["--layer", "cache:size=4M"]])
@pytest.mark.parametrize("workload", ["randwrite", "write"])
def test_fio_verifies_what_it_wrote(tmp_path, layers, workload):
    disk = tmp_path / "disk.img"
    with disk.open("wb") as out:
        out.truncate(32 << 20)
    with daemon(*layers, "file", disk) as server:
        done = subprocess.run(
            ["fio", "--name=verify", "--ioengine=nbd", f"--uri={server.uri()}", f"--rw={workload}",
             "--bsrange=512-64k", "--bs_unaligned=0", "--blockalign=512", "--iodepth=32",
             "--size=32M", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1",
             "--randrepeat=1", "--fsync=64", "--buffer_compress_percentage=30"],
            capture_output=True, text=True, timeout=240, check=False, cwd=tmp_path,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "err= 0" in done.stdout


def test_nbd_client_lists_the_exports(image):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with daemon("file", image, options=["-p", port, "-e", "disk", "--description", "for tests"]):
        told = subprocess.run(
            ["nbd-client", "-l", "127.0.0.1", str(port)],
            capture_output=True, text=True, timeout=60, check=True,
        ).stdout  # fmt: skip
    assert "disk" in told
    assert "for tests" in told
