"""What the README and the tutorial tell a newcomer to type, typed."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nginx import nginx
from tools import ENVIRONMENT
from waiting import eventually

ROOT = Path(__file__).parents[2]


def blocks(page):
    """The shell blocks of a page that are meant to run: fenced as `sh`, no example.com in them."""
    found = re.findall(r"^```sh\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    return [b for b in found if "make " not in b and "example.com" not in b and "/etc/" not in b]


@pytest.fixture(scope="module")
def demo():
    """The demo, run once; what it leaves is what the tutorial goes on with."""
    return subprocess.run(
        [sys.executable, "docs/demo/demo.py"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False, env=ENVIRONMENT,
    )  # fmt: skip


def cost(done):
    """What a demo told: requests, bytes fetched, size of the file."""
    told = r"(\d+) HTTP requests, (\d+) bytes fetched of a file of (\d+)"
    return map(int, re.search(told, done.stdout).groups())


def test_the_demo_copies_the_image_back_and_tells_what_it_cost(demo):
    assert demo.returncode == 0, demo.stderr
    sums = re.findall(r"sha256 .*: +([0-9a-f]{64})", demo.stdout)
    assert len(sums) == 2
    assert sums[0] == sums[1]
    requests, fetched, size = cost(demo)
    assert requests <= 1.1 * 16 + 1
    assert fetched <= 1.02 * size
    assert "Type next" in demo.stdout


def test_the_demo_takes_a_url_of_the_users_own(demo, tmp_path):
    packed = ROOT / "build" / "demo" / "web" / "disk.img.xz"
    with nginx(tmp_path / "web") as web:
        (web.files / "mine.raw.xz").symlink_to(packed)
        done = subprocess.run(
            [sys.executable, "docs/demo/demo.py", web.url("mine.raw.xz")],
            cwd=ROOT, capture_output=True, text=True, timeout=300, check=False, env=ENVIRONMENT,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    requests, fetched, size = cost(done)
    assert requests <= 1.1 * 16 + 1
    assert size == packed.stat().st_size
    assert size - 4096 <= fetched <= 1.02 * size
    assert "qemu-system-x86_64" in done.stdout


def test_the_demo_tells_a_url_that_leads_nowhere_in_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "docs/demo/demo.py", "http://127.0.0.1:9/none.xz"],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False, env=ENVIRONMENT,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("demo: ")
    assert "Traceback" not in done.stderr


def any_of_group(group):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, 0)
        return True
    return False


def test_an_interrupted_demo_leaves_no_process_and_no_copy(demo, tmp_path):
    with nginx(tmp_path / "web", extra="limit_rate 100k;") as web:
        (web.files / "far.raw.xz").symlink_to(ROOT / "build" / "demo" / "web" / "disk.img.xz")
        process = subprocess.Popen(
            [sys.executable, "docs/demo/demo.py", web.url("far.raw.xz")],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
            start_new_session=True,
        )  # fmt: skip
        for line in process.stdout:
            if line.startswith("== nbdcopy"):
                break
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "Traceback" not in told
    eventually(lambda: not any_of_group(process.pid))  # init may take a moment to bury the last
    left = {path.name for path in (ROOT / "build" / "demo").iterdir()}
    assert left <= {"disk.img", "web", "nginx"}


def test_make_hands_a_url_over_whole():
    url = "https://example.com/image.raw.xz?signature=1&expires=2"
    told = subprocess.run(
        ["make", "-n", "demo", f"URL={url}"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert f"docs/demo/demo.py '{url}'" in told


@pytest.mark.parametrize("block", blocks("docs/tutorial.md"))
def test_the_tutorial_can_be_typed(demo, block):
    path = f"{Path(sys.executable).parent}:{ENVIRONMENT['PATH']}"
    done = subprocess.run(
        ["sh", "-e", "-c", block], cwd=ROOT, capture_output=True, text=True, timeout=120,
        check=False, env={**os.environ, "PATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
