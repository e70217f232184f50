"""qemu's tools against a running nbdserve: qemu-img, qemu-io."""

import json
import subprocess

import pytest

from daemon import daemon


def run(*argv, status=0):
    done = subprocess.run(
        [str(word) for word in argv], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == status, done
    return done.stdout


def options(server, export=""):
    return f"nbd+unix:///{export}?socket={server.socket}"


def test_qemu_img_info_tells_the_size(image):
    with daemon("file", image) as server:
        told = json.loads(run("qemu-img", "info", "--output=json", options(server)))
    assert told["virtual-size"] == 4 << 20


def test_qemu_img_map_shows_the_hole(image, tmp_path):
    sparse = tmp_path / "sparse.img"
    run("cp", "--sparse=always", image, sparse)
    with daemon("file", sparse) as server:
        told = json.loads(run("qemu-img", "map", "--output=json", options(server)))
    assert [(e["start"], e["length"], e["data"], e["zero"]) for e in told] == [
        (0, 1 << 20, True, False),
        (1 << 20, 1 << 20, False, True),
        (2 << 20, 2 << 20, True, False),
    ]


def test_qemu_img_compare_finds_them_identical(image):
    with daemon("--layer", "cow", "file", image) as server:
        assert "identical" in run("qemu-img", "compare", "-f", "raw", image, options(server))


def test_qemu_img_convert_reads_and_writes(image, pattern, tmp_path):
    target = tmp_path / "target.img"
    with daemon("memory", len(pattern)) as server:
        run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, options(server))
        run("qemu-img", "convert", "-f", "raw", "-O", "raw", options(server), target)
    assert target.read_bytes() == pattern


def test_qemu_img_convert_copies_from_export_to_export(image, pattern):
    with daemon("--layer", "cow", "file", image) as source, daemon("memory", "4M") as target:
        run("qemu-img", "convert", "-n", "-W", "-f", "raw", "-O", "raw",
            options(source), options(target))  # fmt: skip
        run("qemu-img", "compare", options(source), options(target))


@pytest.mark.parametrize("write", [[], ["-w"], ["-w", "--flush-interval=16"]])
def test_qemu_img_bench_runs(write):
    with daemon("memory", "16M") as server:
        told = run("qemu-img", "bench", "-c", "500", "-d", "16", "-s", "4096", "-f", "raw",
                   *write, options(server))  # fmt: skip
    assert "Run completed" in told


def test_an_unknown_export_is_refused_with_a_text(image):
    with daemon("file", image, options=["-e", "disk"]) as server:
        done = subprocess.run(
            ["qemu-img", "info", options(server, "other")],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == 1
    assert "no export 'other' here; there is 'disk'" in done.stderr


def qemu_io(server, *commands, status=0):
    words = [word for command in commands for word in ("-c", command)]
    return run("qemu-io", "-f", "raw", *words, options(server), status=status)


@pytest.mark.parametrize("layers", [[], ["--layer", "cow"], ["--layer", "cache:size=1M"]])
def test_qemu_io_writes_zeroes_discards_and_verifies(image, layers):
    with daemon(*layers, "file", image) as server:
        told = qemu_io(
            server,
            "write -P 0xaa 0 128k",
            "write -f -P 0xbb 100k 7k",
            "write -z 64k 8k",
            "write -z -u 96k 4k",
            "discard 32k 16k",
            "flush",
            "read -P 0xaa 0 32k",
            "read -P 0 64k 8k",
            "read -P 0 96k 4k",
            "read -P 0xbb 100k 7k",
            "read -P 0xaa 107k 21k",
        )
    assert "failed" not in told.lower()


def test_qemu_io_asynchronous_requests_overlap(image):
    with daemon("--layer", "delay:write=1ms", "file", image) as server:
        writes = [f"aio_write -P {n} {n * 64}k 64k" for n in range(1, 17)]
        reads = [f"read -P {n} {n * 64}k 64k" for n in range(1, 17)]
        told = qemu_io(server, *writes, "aio_flush", *reads)
    assert "failed" not in told.lower()


def test_qemu_io_sees_its_writes_after_a_reconnect(image):
    with daemon("file", image) as server:
        qemu_io(server, "write -P 0x5a 512 1k", "flush")
        qemu_io(server, "read -P 0x5a 512 1k")
    assert image.read_bytes()[512:1536] == b"\x5a" * 1024


def test_qemu_io_of_a_failing_export_gets_the_error(image):
    with daemon("--layer", "error:rate=1,commands=write,error=ENOSPC", "file", image) as server:
        done = subprocess.run(
            ["qemu-io", "-f", "raw", "-c", "write 0 4k", "-c", "read 0 4k", options(server)],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert "No space left on device" in done.stdout + done.stderr
    assert "read 4096/4096" in done.stdout
