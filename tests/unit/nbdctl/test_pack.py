"""`nbdctl pack`, by the real command, judged by the xz tool."""

import os
import pty
import resource
import signal
import subprocess

import pytest

from chains import pattern
from nbdctl_command import nbdctl_argv, run_nbdctl
from nginx import nginx
from waiting import eventually


def xz(*words):
    return subprocess.run(["xz", *words], capture_output=True, check=True).stdout


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def raw(tmp_path):
    """A sparse image of 20 MiB and a bit, with data at both ends and zeroes written between."""
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate((20 << 20) + 333)
        file.write(pattern(1 << 20))
        file.seek(8 << 20)
        file.write(bytes(4 << 20))
        file.seek(20 << 20)
        file.write(b"end")
    return path


def test_a_raw_image_is_packed_and_comes_back_the_same(raw, tmp_path):
    out = tmp_path / "disk.raw.xz"
    done = run_nbdctl("pack", raw, out, "--block-size", "4M", "-T", "2", "-0")
    assert done.returncode == 0, done.stderr
    assert "6 blocks, 4 of them zero" in done.stdout
    xz("-t", out)
    assert xz("-dc", out) == raw.read_bytes()
    assert b"Sizes in headers:  Yes" in xz("-lvv", out)
    assert names(tmp_path) == ["disk.raw", "disk.raw.xz"]


@pytest.mark.parametrize("options", [["-T1"], ["-T2", "--block-size=1MiB"], ["--check=sha256"]])
def test_an_xz_file_is_packed_anew_as_its_image_would_be(raw, tmp_path, options):
    subprocess.run(["xz", "-k", "-0", *options, raw], check=True)
    wanted, out = tmp_path / "wanted", tmp_path / "out"
    assert run_nbdctl("pack", raw, wanted, "-0").returncode == 0
    assert run_nbdctl("pack", raw.with_name("disk.raw.xz"), out, "-0").returncode == 0
    assert out.read_bytes() == wanted.read_bytes()


def test_it_may_be_packed_in_place(raw):
    subprocess.run(["xz", "-0", "-T1", "-k", raw], check=True)
    packed = raw.with_name("disk.raw.xz")
    assert run_nbdctl("pack", packed, packed, "-0", "--force").returncode == 0
    assert xz("-dc", packed) == raw.read_bytes()


def test_a_url_is_fetched_once_and_packed(raw, tmp_path):
    out = tmp_path / "out.xz"
    with nginx(tmp_path / "web") as web:
        raw.write_bytes(os.urandom(1 << 20))
        with (web.files / "disk.xz").open("wb") as packed:
            subprocess.run(["xz", "-0", "-c", raw], stdout=packed, check=True)
        size = (web.files / "disk.xz").stat().st_size
        assert run_nbdctl("pack", web.url("disk.xz"), out, "-0").returncode == 0
        fetched = sum(hit.sent for hit in web.hits())
    assert xz("-dc", out) == raw.read_bytes()
    assert fetched < size + (64 << 10) + 4096, "its index, and then the whole of it once"


@pytest.mark.parametrize(
    ("head", "told"),
    [(b"QFI\xfb", "qemu-img convert"), (b"\x1f\x8b", "zcat"), (b"\x28\xb5\x2f\xfd", "zstdcat")],
)
def test_a_file_that_holds_an_image_but_is_none_is_not_packed_by_mistake(tmp_path, head, told):
    image, out = tmp_path / "image", tmp_path / "out.xz"
    image.write_bytes(head + bytes(5000))
    done = run_nbdctl("pack", image, out)
    assert done.returncode == 1
    assert told in done.stderr
    assert not out.exists()
    assert run_nbdctl("pack", "file", image, out, "-q").returncode == 0, "unless it is asked for"
    assert xz("-dc", out) == image.read_bytes()


def test_a_chain_is_packed_as_it_is_served(tmp_path):
    out = tmp_path / "out.xz"
    done = run_nbdctl(
        "pack", "--layer", "slice:offset=8,length=64K", "pattern", "1M", out, "--check", "crc32"
    )
    assert done.returncode == 0, done.stderr
    assert xz("-dc", out) == pattern(64 << 10, 8)
    assert b"CRC32" in xz("-l", out)


def test_a_name_that_is_a_source_needs_its_argument(tmp_path):
    done = run_nbdctl("pack", "memory", tmp_path / "out")
    assert done.returncode == 2
    assert "needs SIZE" in done.stderr


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("layers", [[], ["--layer", "delay:read=1h"]], ids=["busy", "waiting"])
def test_nothing_is_left_when_it_is_stopped(tmp_path, stop, layers):
    process = subprocess.Popen(
        nbdctl_argv("pack", "-q", *layers, "pattern", "1T", tmp_path / "out", "-9"),
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    eventually(lambda: any(path.stat().st_size for path in tmp_path.iterdir()))
    process.send_signal(stop)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + stop
    assert told == ""
    assert names(tmp_path) == []


def test_a_full_disk_leaves_nothing_and_says_so(tmp_path):
    """By RLIMIT_FSIZE, which fails a write as a full disk does."""
    image = tmp_path / "image"
    image.write_bytes(os.urandom(3 << 20))
    done = run_nbdctl(
        "pack", "-q", "-0", image, tmp_path / "out", "--block-size", "1M",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
    )  # fmt: skip
    assert done.returncode == 1
    assert "make room" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert names(tmp_path) == ["image"]


def test_an_image_that_is_damaged_leaves_nothing(raw, tmp_path):
    packed = tmp_path / "disk.xz"
    with packed.open("wb") as file:
        subprocess.run(["xz", "-0", "-c", raw], stdout=file, check=True)
    damaged = bytearray(packed.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    packed.write_bytes(damaged)
    done = run_nbdctl("pack", "-q", packed, tmp_path / "out")
    assert done.returncode == 1
    assert "corrupt" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert names(tmp_path) == ["disk.raw", "disk.xz"]


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["{tmp}/none", "{tmp}/out"], 1, "No such file"),
        (["{tmp}/disk.raw"], 2, "name the image and the file to write"),
        (["{tmp}/disk.raw", "{tmp}/disk.raw"], 1, "--force replaces it"),
        (["{tmp}/disk.raw", "{tmp}/out", "--block-size", "1000"], 2, "a multiple of 4K"),
        (["{tmp}/disk.raw", "{tmp}/out", "--block-size", "2G"], 2, "512M"),
        (["{tmp}/disk.raw", "{tmp}/out", "--check", "md5"], 2, "crc64"),
        (["{tmp}/disk.raw", "{tmp}/out", "-T", "x"], 2, "whole number"),
        (["{tmp}/disk.raw", "{tmp}/none/out"], 1, "make its folder"),
        (["fil", "x", "{tmp}/out"], 2, "did you mean 'file'"),
    ],
)
def test_a_mistake_is_one_line_with_its_remedy(raw, tmp_path, words, status, told):
    done = run_nbdctl("pack", *(word.format(tmp=tmp_path) for word in words))
    assert done.returncode == status
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert names(tmp_path) == ["disk.raw"]


def test_on_a_terminal_it_shows_a_bar_with_rate_and_end(raw, tmp_path):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        nbdctl_argv("pack", raw, tmp_path / "out", "-0"), stdout=subprocess.DEVNULL, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 65536):
            shown += data
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait(60) == 0
    assert b"100%" in shown
    assert b"MiB/s" in shown
    assert b"[####" in shown
    assert shown.endswith(b"\r")


def test_elsewhere_it_tells_plain_lines(raw, tmp_path):
    done = run_nbdctl("pack", raw, tmp_path / "out", "-0")
    lines = done.stderr.splitlines()
    assert lines[-1].startswith("100%")
    assert len(lines) <= 10
    assert "\r" not in done.stderr
    assert run_nbdctl("pack", "-q", raw, tmp_path / "quiet", "-0").stderr == ""
