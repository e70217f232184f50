"""What holds for every file of the project."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REGISTRIES = re.compile(r"pythonhosted|--index-url|--extra-index|registry\.npm|/simple/")
HOMES = re.compile(r"/(home|Users)/[a-z]|/root/")


def tracked():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return [ROOT / name for name in listed.split("\0") if name]


def test_no_file_records_a_registry_or_a_home_folder():
    for path in tracked():
        if path == Path(__file__) or not path.is_file():
            continue
        text = path.read_text(errors="replace")
        assert not REGISTRIES.search(text), path
        assert not HOMES.search(text), path


def test_every_dependency_is_pinned():
    pins = (ROOT / "constraints.txt").read_text().lower()
    for name in ("aiohttp", "python-xz", "uvloop", "pytest", "pytest-asyncio", "hypothesis",
                 "mypy", "ruff"):  # fmt: skip
        assert re.search(rf"^{name}==", pins, re.MULTILINE), name


@pytest.mark.parametrize(
    "tool",
    ["nbdinfo", "nbdcopy", "nbdsh", "nbd-client", "qemu-img", "qemu-io", "qemu-system-x86_64",
     "fio", "nginx", "xz", "mke2fs", "sfdisk", "grub-mkimage", "cpio", "depmod", "busybox",
     "systemd-analyze", "file"],
)  # fmt: skip
def test_a_tool_the_tests_need_is_there(tool):
    path = f"/usr/sbin:/sbin:/usr/bin:/bin:{Path.cwd()}"
    assert shutil.which(tool, path=path), f"{tool} is missing; make test installs it"
