"""The main job: an xz-compressed image behind a real web server, read by real clients."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from daemon import daemon, run_nbdserve
from guest import MARKER
from nginx import nginx
from tools import ENVIRONMENT, digest
from webserver import broken_off, misbehaving, status


def test_a_whole_copy_fetches_each_block_once_and_the_index_once(
    web, boot_image, boot_image_xz, tmp_path
):
    """At most 1.02 x the file, 1.1 requests a block, 200 MiB of RSS, with 4 connections."""
    copy = tmp_path / "copy.img"
    web.forget()
    with daemon("--layer", "xz", "http", web.url("boot.img.xz")) as server:
        opening = web.hits()
        subprocess.run(
            ["nbdcopy", "--connections=4", "--threads=4", server.uri(), copy],
            check=True,
            timeout=300,
        )
        peak = server.peak_rss
    assert digest(copy) == digest(boot_image)
    hits = web.hits()
    size = boot_image_xz.stat().st_size
    blocks = (1 << 30) // (16 << 20)
    fetched = sum(hit.sent for hit in hits)
    print(
        f"fetched={fetched / size:.4f}x requests={len(hits) / blocks:.3f}/block rss={peak >> 20}M"
    )
    assert {hit.status for hit in hits} == {206}
    assert fetched <= 1.02 * size
    assert len(hits) <= 1.1 * blocks
    assert len(opening) <= 2, "the index is read once, at opening"
    tail = [hit for hit in hits if hit not in opening and reaches(hit, size - 12)]
    assert tail == [], "the index is read once, however many connections"
    assert peak < 200 << 20


def reaches(hit, position):
    start, _, end = hit.range.removeprefix("bytes=").partition("-")
    return start != "" and int(start) <= position <= int(end or position)


def test_qemu_img_compares_the_remote_image_equal(web, boot_image):
    with daemon("--layer", "xz", "http", web.url("boot.img.xz")) as server:
        done = subprocess.run(
            ["qemu-img", "compare", "-f", "raw", "-F", "raw", boot_image, server.uri()],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done


def kvm_or_tcg() -> list[str]:
    """kvm where a real kvm is there; /dev/kvm alone proves nothing (kvm_pvm never boots)."""
    if any(Path(f"/sys/module/kvm_{vendor}").is_dir() for vendor in ("intel", "amd")):
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg", "-cpu", "max"]


def test_qemu_boots_a_guest_from_the_remote_image(web, boot_image_xz):
    """`--run` with a copy-on-write layer: the guest writes, the origin stays as it is."""
    before = digest(boot_image_xz)
    qemu = " ".join(
        ["qemu-system-x86_64", *kvm_or_tcg(), "-m 256 -nodefaults -display none -serial stdio",
         "-no-reboot -drive file=$nbd,format=raw,if=virtio"]
    )  # fmt: skip
    done = run_nbdserve(
        "--layer", "cow", "--layer", "xz", "--run", qemu, "http", web.url("boot.img.xz")
    )
    assert MARKER in done.stdout, done
    assert "written" in done.stdout.split(MARKER)[1]
    assert done.returncode == 0, done
    assert digest(boot_image_xz) == before


@pytest.fixture
def small(tmp_path):
    """A 1 MiB image in 16 blocks, and what it decodes to."""
    raw = tmp_path / "small.img"
    raw.write_bytes(os.urandom(1 << 20))
    subprocess.run(["xz", "-0", "--block-size=64KiB", "-k", raw], check=True)
    return raw.read_bytes(), raw.with_suffix(".img.xz")


@pytest.fixture
def origin(tmp_path):
    with nginx(tmp_path / "origin") as server:
        yield server


def sector(server, offset):
    """Read 512 bytes by a real client; the bytes, or its error line."""
    script = f"import sys; sys.stdout.buffer.write(h.pread(512, {offset}))"
    done = subprocess.run(
        ["nbdsh", "-u", server.uri(), "-c", script],
        capture_output=True,
        timeout=120,
        check=False,
        env=ENVIRONMENT,
    )
    return done.stdout if done.returncode == 0 else done.stderr.decode().strip()


def test_a_corrupt_block_is_an_error_for_its_own_reads_only(origin, small):
    data, packed = small
    bad = bytearray(packed.read_bytes())
    bad[len(bad) // 2] ^= 1
    (origin.files / "bad.xz").write_bytes(bad)
    with daemon("--layer", "xz", "http", origin.url("bad.xz")) as server:
        answers = [sector(server, n * 65536 + 700) for n in range(16)]
        wrong = [n for n in range(16) if answers[n] != data[n * 65536 + 700 :][:512]]
        assert len(wrong) == 1, "one block is damaged, the others are served"
        assert "Input/output error" in answers[wrong[0]]
        assert "corrupt" in server.log
        assert server.process.poll() is None


def test_a_truncated_file_is_refused_with_one_line(origin, small):
    _, packed = small
    (origin.files / "cut.xz").write_bytes(packed.read_bytes()[:-5000])
    done = run_nbdserve("--layer", "xz", "--run", "true", "http", origin.url("cut.xz"))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "xz" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_replaced_file_is_an_error_never_a_mix(origin, small):
    data, packed = small
    served = origin.files / "image.xz"
    shutil.copy(packed, served)
    with daemon("--layer", "xz", "http", origin.url("image.xz")) as server:
        assert sector(server, 0) == data[:512]
        other = bytearray(packed.read_bytes())
        replacement = served.with_suffix(".new")
        replacement.write_bytes(other)
        os.utime(replacement, (1_000_000_000, 1_000_000_000))
        replacement.rename(served)
        answer = sector(server, 900_000)
        assert "Input/output error" in answer
        assert "changed while open" in server.log
        assert server.process.poll() is None


def test_a_server_that_goes_away_and_comes_back_is_waited_for(origin, small):
    data, packed = small
    shutil.copy(packed, origin.files / "image.xz")
    with daemon("--layer", "xz", "http", origin.url("image.xz")) as server:
        assert sector(server, 0) == data[:512]
        origin.stop()
        reader = subprocess.Popen(
            ["nbdsh", "-u", server.uri(), "-c",
             "import sys; sys.stdout.buffer.write(h.pread(512, 900000))"],
            stdout=subprocess.PIPE, env=ENVIRONMENT,
        )  # fmt: skip
        origin.start()
        answer, _ = reader.communicate(timeout=120)
        assert answer == data[900_000:][:512]


def test_a_server_that_stays_away_is_an_error_in_time(origin, small):
    data, packed = small
    shutil.copy(packed, origin.files / "image.xz")
    with daemon("--layer", "xz", "http", origin.url("image.xz"), "retry-for=2s") as server:
        assert sector(server, 0) == data[:512]
        origin.stop()
        assert "Input/output error" in sector(server, 900_000)
        assert sector(server, 0) == data[:512], "what was decoded is still served"
        assert server.process.poll() is None


def test_a_server_without_range_gets_one_full_download(origin, small):
    data, packed = small
    shutil.copy(packed, origin.files / "image.xz")
    with daemon("--layer", "xz", "http", origin.url("norange/image.xz")) as server:
        assert [sector(server, n) for n in (0, 900_000)] == [data[:512], data[900_000:][:512]]
    hits = origin.hits()
    assert hits[-1].status == 200
    assert sum(hit.sent for hit in hits) <= 2.02 * packed.stat().st_size


def test_redirects_are_followed_once_and_remembered(origin, small):
    data, packed = small
    shutil.copy(packed, origin.files / "image.xz")
    with daemon("--layer", "xz", "http", origin.url("redirect/image.xz")) as server:
        for n in range(16):
            assert sector(server, n * 65536) == data[n * 65536 :][:512]
    hits = origin.hits()
    assert [hit.status for hit in hits].count(302) == 1


@pytest.fixture
def served(small):
    """A scripted web server with a small image, and the daemon that serves it."""
    data, packed = small
    with contextlib.ExitStack() as stack:
        web = stack.enter_context(misbehaving(packed.read_bytes()))
        server = stack.enter_context(daemon("--layer", "xz", "http", web.url()))
        yield data, web, server


def test_a_short_body_succeeds_late(served):
    data, web, server = served
    web.script += [broken_off(100), broken_off(0), broken_off(20_000)]
    assert sector(server, 300_000) == data[300_000:][:512]
    assert web.script == [], "each was met"


def test_a_200_instead_of_a_206_is_an_error_and_its_bytes_are_never_served(served):
    data, web, server = served
    web.script += [lambda me, _: me.head("200 OK", len(me.contents)) + me.contents]
    assert "Input/output error" in sector(server, 300_000)
    assert "stopped answering ranges" in server.log
    assert sector(server, 300_000) == data[300_000:][:512], "the next answer was right"
    assert server.process.poll() is None


def test_a_mirror_that_is_busy_and_then_recovers_succeeds_late(served):
    data, web, server = served
    web.script += [status("503 Busy"), status("429 Slow", Retry_After="1"), status("500 Oops")]
    assert sector(server, 300_000) == data[300_000:][:512]
