"""What the README and the tutorial tell a newcomer to type, typed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools import ENVIRONMENT

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


def test_the_demo_copies_the_image_back_and_tells_what_it_cost(demo):
    assert demo.returncode == 0, demo.stderr
    sums = re.findall(r"sha256 .*: +([0-9a-f]{64})", demo.stdout)
    assert len(sums) == 2
    assert sums[0] == sums[1]
    requests, fetched, size = map(
        int, re.search(r"(\d+) HTTP requests, (\d+) bytes fetched of a file of (\d+)", demo.stdout)
        .groups()
    )  # fmt: skip
    assert requests <= 1.1 * 16 + 1
    assert fetched <= 1.02 * size
    assert "Type next" in demo.stdout


def test_the_demo_takes_a_url_of_the_users_own(demo, tmp_path):
    from nginx import nginx

    with nginx(tmp_path / "web") as web:
        (web.files / "mine.raw.xz").symlink_to(ROOT / "build" / "demo" / "web" / "disk.img.xz")
        done = subprocess.run(
            [sys.executable, "docs/demo/demo.py", web.url("mine.raw.xz")],
            cwd=ROOT, capture_output=True, text=True, timeout=300, check=False, env=ENVIRONMENT,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "HTTP requests" in done.stdout
    assert "qemu-system-x86_64" in done.stdout


def test_the_demo_tells_a_url_that_leads_nowhere_in_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "docs/demo/demo.py", "http://127.0.0.1:9/none.xz"],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False, env=ENVIRONMENT,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("demo: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("block", blocks("docs/tutorial.md"))
def test_the_tutorial_can_be_typed(demo, block):
    path = f"{Path(sys.executable).parent}:{ENVIRONMENT['PATH']}"
    done = subprocess.run(
        ["sh", "-e", "-c", block], cwd=ROOT, capture_output=True, text=True, timeout=120,
        check=False, env={**os.environ, "PATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
