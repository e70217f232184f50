"""The cache on disk as the daemon runs it: restarts, kills, damage, full disks, real clients."""

import json
import random
import shlex
import struct
import subprocess

import pytest

from daemon import daemon, nbdserve_argv
from nbdctl_command import run_nbdctl
from nginx import nginx
from tools import ENVIRONMENT
from waiting import eventually

SIZE = (24 << 20) + 5 * 512


@pytest.fixture(scope="module")
def contents() -> bytes:
    """Words that tell their place, noise, and holes."""
    words = b"".join(struct.pack(">Q", at) for at in range(8, (8 << 20) + 8, 8))
    noise = random.Random(1).randbytes(8 << 20)
    return words + bytes(8 << 20) + noise + words[: SIZE - (24 << 20)]


@pytest.fixture(scope="module")
def raw(contents, tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "disk.img"
    path.write_bytes(contents)
    subprocess.run(["xz", "-0", "-T0", "--block-size=4MiB", "--keep", path], check=True)
    return path


@pytest.fixture
def web(tmp_path, raw):
    with nginx(tmp_path / "origin") as server:
        for path in (raw, raw.with_suffix(".img.xz")):
            (server.files / path.name).symlink_to(path)
        yield server


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def caching(web, folder, *more, size="1G"):
    """The words that serve the xz image through a cache."""
    layer = ",".join([f"cache:path={folder}", f"size={size}", *more])
    return "--layer", layer, "--layer", "xz", "http", web.url("disk.img.xz")


def assert_equal(server, raw):
    done = subprocess.run(
        ["qemu-img", "compare", "-f", "raw", "-F", "raw", raw, server.uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done, server.log)


def sector(server, offset):
    """Read 512 bytes by a real client: the bytes, or its error line."""
    script = f"import sys; sys.stdout.buffer.write(h.pread(512, {offset}))"
    done = subprocess.run(
        ["nbdsh", "-u", server.uri(), "-c", script],
        capture_output=True, timeout=120, check=False, env=ENVIRONMENT,
    )  # fmt: skip
    return done.stdout if done.returncode == 0 else done.stderr.decode().strip()


def only(folder, ending):
    (found,) = folder.glob(f"*{ending}")
    return found


def used(folder):
    return sum(path.stat().st_blocks * 512 for path in folder.glob("*.data"))


def test_the_second_start_costs_one_request_and_the_copy_is_whole(web, folder, raw, tmp_path):
    copy = tmp_path / "copy.img"
    with daemon(*caching(web, folder)) as server:
        subprocess.run(["nbdcopy", "--connections=4", server.uri(), copy], check=True, timeout=120)
        assert copy.read_bytes() == raw.read_bytes()
    web.forget()
    with daemon(*caching(web, folder)) as server:
        subprocess.run(["nbdcopy", "--connections=4", server.uri(), copy], check=True, timeout=120)
        assert copy.read_bytes() == raw.read_bytes()
        assert_equal(server, raw)
    assert len(web.hits()) == 1, "to see that the image is still the same"


def test_without_the_origin_what_is_cached_is_served_with_no_request(web, folder, raw):
    with daemon(*caching(web, folder)) as server:
        assert_equal(server, raw)
    web.stop()
    web.forget()
    with daemon(*caching(web, folder)) as server:
        assert_equal(server, raw)
        assert "starts without what lies beneath it" in server.log
    assert web.hits() == []


def test_what_is_not_cached_comes_when_the_origin_is_back(web, folder, raw):
    with daemon(*caching(web, folder)) as server:
        assert sector(server, 1 << 20) == raw.read_bytes()[1 << 20 :][:512]
    web.stop()
    with daemon(*caching(web, folder)) as server:
        assert sector(server, 1 << 20) == raw.read_bytes()[1 << 20 :][:512]
        assert "Input/output error" in sector(server, 20 << 20)
        web.start()
        eventually(lambda: isinstance(sector(server, 20 << 20), bytes), within=120)
        assert_equal(server, raw)
        assert server.process.poll() is None


def test_beneath_xz_it_keeps_what_is_packed(web, folder, raw):
    layers = ("--layer", "xz", "--layer", f"cache:path={folder},size=1G")
    for _ in range(2):
        web.forget()
        with daemon(*layers, "http", web.url("disk.img.xz")) as server:
            assert_equal(server, raw)
    assert len(web.hits()) == 1
    assert used(folder) < raw.stat().st_size


def test_known_zeroes_are_holes_to_clients_and_on_disk(web, folder, raw):
    with daemon(*caching(web, folder)) as server:
        assert_equal(server, raw)
    web.forget()
    with daemon(*caching(web, folder)) as server:
        done = subprocess.run(
            ["nbdinfo", "--map", "--totals", server.uri()],
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
    assert f"{8 << 20}" in next(line for line in done.stdout.splitlines() if "hole,zero" in line)
    assert used(folder) <= (17 << 20)
    assert len(web.hits()) == 1


@pytest.mark.parametrize("reached", [1, 5, 14])
def test_a_kill_while_it_fills_leaves_nothing_that_is_wrong(web, folder, raw, reached):
    """Killed three times in a row, each time further on; then the origin need not send it again."""
    for part in (1, 2, 3):
        with daemon(*caching(web, folder, "fill=background", "fill-rate=40M")) as server:
            eventually(lambda: used(folder) >= part * reached * (1 << 20) // 3)  # noqa: B023
            server.kill()
    with daemon(*caching(web, folder)) as server:
        assert_equal(server, raw)
        assert "damaged" not in server.log, "what a killed process wrote is all there"
    web.forget()
    with daemon(*caching(web, folder)) as server:
        assert_equal(server, raw)
    assert len(web.hits()) == 1


def test_it_fills_until_the_origin_may_go(web, folder, raw):
    with daemon(*caching(web, folder, "fill=background")) as server:
        eventually(lambda: "the origin is no longer needed" in server.log)
        web.stop()
        assert_equal(server, raw)


def test_what_was_warmed_needs_no_origin_and_status_tells_of_it(web, folder, raw, tmp_path):
    path = tmp_path / "control.sock"
    with daemon(*caching(web, folder), options=["--control", path]) as server:
        done = run_nbdctl("warm", "--control", path, "")
        assert done.returncode == 0, done.stderr
        web.stop()
        assert_equal(server, raw)
        told = json.loads(run_nbdctl("status", "--control", path, "--json").stdout)
    (export,) = told["exports"]
    facts = export["devices"][0]["status"]
    assert facts["present"] == facts["size"] == SIZE
    assert facts["used"] >= 16 << 20
    assert facts["limit"] == 1 << 30
    assert facts["hits"] > 0


@pytest.mark.parametrize("seed", range(3))
def test_damaged_files_are_read_from_the_origin_again(web, folder, raw, seed):
    with daemon(*caching(web, folder)) as server:
        assert_equal(server, raw)
    rng = random.Random(seed)
    for ending in (".data", ".map"):
        path = only(folder, ending)
        with path.open("r+b") as file:
            for _ in range(20):
                file.seek(rng.randrange(4096, path.stat().st_size))
                file.write(rng.randbytes(1))
    with daemon(*caching(web, folder)) as server:
        assert_equal(server, raw)
        assert "cached data is damaged" in server.log
        assert server.log.count("nbdserve: warning") == 1
        assert server.process.poll() is None


def test_a_full_disk_is_a_warning_and_a_smaller_cache(web, folder, raw):
    """A tmpfs of 6 MiB, which only the daemon sees."""
    folder.mkdir()
    mounted = f"mount -t tmpfs -o size=6M cache {folder} && exec "
    with daemon(*caching(web, folder), wrap=in_own_mounts(mounted)) as server:
        assert_equal(server, raw)
        assert_equal(server, raw)
        lines = [line for line in server.log.splitlines() if line.startswith("nbdserve: warning")]
        assert len(lines) == 1, server.log
        assert "no room left for the cache" in lines[0]
        assert server.process.poll() is None
    assert list(folder.iterdir()) == [], "it was seen by nobody else"


def in_own_mounts(script):
    """Run the daemon by a shell in a mount namespace of its own; no rights are needed for it."""

    def argv(words):
        return ["unshare", "--map-root-user", "--mount", "sh", "-c", script + shlex.join(words)]

    return argv


def test_two_daemons_share_a_folder(web, folder, raw):
    with daemon(*caching(web, folder)) as first, daemon(*caching(web, folder)) as second:
        web.forget()
        assert_equal(first, raw)
        fetched = len(web.hits())
        assert_equal(second, raw)
        assert len(web.hits()) == fetched, "what the one brought the other serves"
        first.kill()
        assert_equal(second, raw)
        assert len(web.hits()) == fetched


def test_a_folder_stays_within_its_size(web, folder, raw):
    with daemon(*caching(web, folder, size="8M")) as server:
        assert_equal(server, raw)
        total = sum(path.stat().st_blocks * 512 for path in folder.iterdir())
        assert total <= 8 << 20
        assert_equal(server, raw)


def test_an_image_that_was_replaced_is_cached_anew(web, folder, raw, tmp_path):
    with daemon(*caching(web, folder)) as server:
        assert_equal(server, raw)
    other = tmp_path / "other.img"
    other.write_bytes(raw.read_bytes()[::-1])
    subprocess.run(["xz", "-0", "--block-size=4MiB", "--keep", other], check=True)
    other.with_suffix(".img.xz").replace(web.files / "disk.img.xz")
    with daemon(*caching(web, folder)) as server:
        assert_equal(server, other)


def test_what_may_be_written_is_refused_with_the_remedy(raw, folder):
    done = subprocess.run(
        nbdserve_argv("--layer", f"cache:path={folder},size=1G", "--run", "true", "memory", "1M"),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "put cow above the cache" in done.stderr
    assert done.stderr.count("\n") == 1
