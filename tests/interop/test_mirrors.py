"""Mirrors that fail in the ways mirrors do, and real clients that must not notice, or in time."""

import contextlib
import hashlib
import os
import subprocess
import time

import pytest

from daemon import daemon
from tools import ENVIRONMENT
from webserver import misbehaving, silent, status, throttled

SIZE = 12 << 20
TAIL = 64 << 10


@pytest.fixture(scope="module")
def contents():
    return os.urandom(SIZE)


@pytest.fixture
def mirrors(contents):
    """Three mirrors of one file."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(misbehaving(contents)) for _ in range(3)]


def serve(mirrors, *words):
    first, *others = mirrors
    return daemon("http", first.url(), *(f"url={web.url()}" for web in others), *words)


def copied(server, tmp_path):
    """Copy the disk by nbdcopy with four connections; its bytes."""
    copy = tmp_path / "copy.img"
    subprocess.run(
        ["nbdcopy", "--connections=4", "--threads=2", server.uri(), copy], check=True, timeout=120
    )
    return copy.read_bytes()


def sector(server, offset):
    """Read 512 bytes by a real client; the bytes, or its error line."""
    script = f"import sys; sys.stdout.buffer.write(h.pread(512, {offset}))"
    done = subprocess.run(
        ["nbdsh", "-u", server.uri(), "-c", script],
        capture_output=True, timeout=120, check=False, env=ENVIRONMENT,
    )  # fmt: skip
    return done.stdout if done.returncode == 0 else done.stderr.decode().strip()


def midway(web, then):
    """Answer `then` once 4 MiB of the file have been asked for."""
    before = web.sent

    def answer(server, asked):
        if server.sent - before > 4 << 20:
            server.always = then
            return then(server, asked)
        return server.ranged(asked)

    web.always = answer


def warnings(server):
    return [line for line in server.log.splitlines() if "warning" in line.lower()]


def test_a_healthy_mirror_gets_each_byte_asked_once_and_the_others_none(
    mirrors, contents, tmp_path
):
    with serve(mirrors) as server:
        assert copied(server, tmp_path) == contents
    assert mirrors[0].sent < 1.02 * SIZE
    assert [web.asked for web in mirrors[1:]] == [[], []]


def test_a_mirror_throttled_midway_is_left_for_another(mirrors, contents, tmp_path):
    midway(mirrors[0], throttled(1 << 20))
    with serve(mirrors[:2]) as server:
        assert copied(server, tmp_path) == contents
        assert server.process.poll() is None
    assert sum(web.sent for web in mirrors) < 1.2 * SIZE
    assert mirrors[1].sent > 4 << 20


def test_a_mirror_throttled_midway_is_waited_for_where_it_is_the_only_one(
    mirrors, contents, tmp_path
):
    midway(mirrors[0], throttled(4 << 20))
    with serve(mirrors[:1]) as server:
        assert copied(server, tmp_path) == contents


def test_a_mirror_that_loses_the_file_midway_is_excluded(mirrors, contents, tmp_path):
    midway(mirrors[0], status("404 Not Found"))
    with serve(mirrors) as server:
        assert copied(server, tmp_path) == contents
        (told,) = warnings(server)
        assert "404 Not Found" in told
        assert mirrors[0].url() in told
    assert mirrors[2].asked == []


def test_a_stale_mirror_is_excluded_and_never_read(mirrors, contents, tmp_path):
    mirrors[1].contents = bytes(SIZE)
    midway(mirrors[0], status("404 Not Found"))
    with serve(mirrors) as server:
        assert copied(server, tmp_path) == contents
        told = warnings(server)
        assert len(told) == 2
        assert "other content" in told[1]
        assert mirrors[1].url() in told[1]
        assert server.process.poll() is None
    assert len(mirrors[1].asked) == 1
    assert mirrors[1].sent < TAIL + 1000


def test_connections_cut_every_5_mb_cost_nothing_but_connections(contents, tmp_path):
    with misbehaving(contents, cut_after=5_000_000) as web, serve([web]) as server:
        assert copied(server, tmp_path) == contents
        raw = tmp_path / "raw.img"
        raw.write_bytes(contents)
        web.cut_after = 300_000  # each of its requests is cut several times
        done = subprocess.run(
            ["qemu-img", "compare", "-f", "raw", "-F", "raw", raw, server.uri()],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done
        assert server.process.poll() is None
    print(f"sent={web.sent / SIZE / 2:.3f}x connections={web.connections}")
    assert web.sent < 2.1 * SIZE, "for two copies"


def test_a_black_hole_at_opening_is_overtaken(mirrors, contents, tmp_path):
    mirrors[0].always = silent
    with serve(mirrors[:2]) as server:
        assert copied(server, tmp_path) == contents


def test_a_mirror_that_falls_silent_midway_is_left_for_another(mirrors, contents, tmp_path):
    midway(mirrors[0], silent)
    with serve(mirrors[:2]) as server:
        assert copied(server, tmp_path) == contents
        assert server.process.poll() is None
    assert mirrors[1].sent > 4 << 20


def test_a_black_hole_that_is_the_only_one_is_an_error_at_the_deadline(mirrors, contents):
    with serve(mirrors[:1], "deadline=2s") as server:
        assert sector(server, 0) == contents[:512]
        mirrors[0].always = silent
        began = time.monotonic()
        answer = sector(server, 1 << 20)
        assert time.monotonic() - began < 30, "its time-out alone would be that"
        assert "Input/output error" in answer
        assert "deadline=2s" in server.log
        mirrors[0].always = None
        assert sector(server, 1 << 20) == contents[1 << 20 :][:512]
        assert server.process.poll() is None


def test_qemu_reads_an_image_through_a_metalink(mirrors, contents, tmp_path):
    raw = tmp_path / "raw.img"
    raw.write_bytes(contents)
    mirrors[0].always = status("404 Not Found")
    places = "".join(f"<url>{web.url()}</url>" for web in mirrors)
    path = tmp_path / "disk.meta4"
    path.write_text(
        '<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="raw.img">'
        f'<size>{SIZE}</size><hash type="sha-256">{hashlib.sha256(contents).hexdigest()}</hash>'
        f"{places}</file></metalink>"
    )
    with daemon("http", f"metalink={path}") as server:
        done = subprocess.run(
            ["qemu-img", "compare", "-f", "raw", "-F", "raw", raw, server.uri()],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done


def test_a_file_that_is_not_what_its_hash_says_is_served_no_more(mirrors, contents):
    with serve(mirrors[:1], f"sha256={'ab' * 32}", "verify=background") as server:
        deadline = time.monotonic() + 60
        while "content is wrong" not in server.log:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert "Input/output error" in sector(server, 0)
        assert "Input/output error" in sector(server, SIZE - 512)
        assert server.process.poll() is None


def test_a_rate_is_kept(mirrors, contents):
    """4 MiB at 2 MiB/s: a quarter of a second is free, and the last piece is paid for later."""
    with serve(mirrors[:1], "max-rate=2M") as server:
        began = time.monotonic()
        subprocess.run(
            ["nbdsh", "-u", server.uri(), "-c", "h.pread(4 << 20, 0)"],
            check=True, timeout=120, env=ENVIRONMENT,
        )  # fmt: skip
        assert time.monotonic() - began > 1.2
