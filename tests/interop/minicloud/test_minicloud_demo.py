"""The README's `make demo-minicloud`, typed; and interrupted."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab import missing
from tools import ENVIRONMENT
from waiting import eventually

ROOT = Path(__file__).parents[3]
DEMO = [sys.executable, "docs/demo/minicloud.py"]


@pytest.fixture(autouse=True)
def possible():
    if problem := missing():
        pytest.skip(problem)


def running():
    """Command lines of processes that belong to the demo."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if "build/demo-minicloud" in line:
            found.append(line)
    return found


def test_the_demo_boots_moves_and_removes_a_guest():
    done = subprocess.run(
        DEMO, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    told = done.stdout
    assert re.search(r"^web1 runs on n1", told, re.MULTILINE)
    assert re.search(r"^web1 moved from n1 to n2", told, re.MULTILINE)
    assert re.search(r"^n2 +on\n.*\n +used: 1vcpus 128M by 1 guest", told, re.MULTILINE)
    assert "nothing is left over" in told
    eventually(lambda: running() == [])


def test_an_interrupted_demo_leaves_nothing_running():
    demo = subprocess.Popen(
        DEMO, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    try:
        for line in demo.stdout:
            if line.startswith("$ minicloud boot"):
                break
        demo.send_signal(signal.SIGINT)
        _, err = demo.communicate(timeout=60)
    finally:
        demo.kill()
    assert demo.returncode == 128 + signal.SIGINT, err
    assert "Traceback" not in err
    eventually(lambda: running() == [])
