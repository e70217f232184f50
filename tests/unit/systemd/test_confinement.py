"""What the units forbid must not slow the daemon down: its fast paths under the real filter."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[3] / "systemd"
SERVICES = ["nbdserve.service", "nbdserve@.service"]

_FILTERED = """
import ctypes, sys
from nbdserve.pagecache import is_resident
lib = ctypes.CDLL("libseccomp.so.2")
lib.seccomp_init.restype = ctypes.c_void_p
lib.seccomp_rule_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint]
lib.seccomp_load.argtypes = [ctypes.c_void_p]
deny, allow = 0x00050000 | 1, 0x7FFF0000  # SCMP_ACT_ERRNO(EPERM), SCMP_ACT_ALLOW
path, *names = sys.argv[1:]
file = open(path, "rb")
before = is_resident(file.fileno(), 0, 4096)
context = lib.seccomp_init(deny)
for name in names:
    number = lib.seccomp_syscall_resolve_name(name.encode())
    if number >= 0:
        assert lib.seccomp_rule_add(context, allow, number, 0) == 0, name
assert lib.seccomp_load(context) == 0
print(before, is_resident(file.fileno(), 0, 4096))
"""


def groups():
    """Read systemd's groups of system calls: name to members."""
    told = subprocess.run(
        ["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True
    ).stdout
    found = {}
    for line in told.splitlines():
        if line.startswith("@"):
            members = found.setdefault(line.strip(), [])
        elif line.startswith("    ") and not line.strip().startswith("#"):
            members.append(line.strip())
    return found


def expand(words, known):
    """Write groups out, and the groups in them."""
    for word in words:
        if word.startswith("@"):
            yield from expand(known[word], known)
        else:
            yield word


def allowed(unit):
    """What the unit's SystemCallFilter= lines come to, as systemd.exec(5) has it."""
    known = groups()
    calls = set()
    for line in re.findall(r"^SystemCallFilter=(.*)$", (UNITS / unit).read_text(), re.MULTILINE):
        if line.startswith("~"):
            calls -= set(expand(line[1:].split(), known))
        else:
            calls |= set(expand(line.split(), known))
    return sorted(calls)


@pytest.mark.parametrize("unit", SERVICES)
def test_the_page_cache_can_be_asked_under_the_units_filter(unit, tmp_path):
    (tmp_path / "file").write_bytes(bytes(8192))
    done = subprocess.run(
        [sys.executable, "-c", _FILTERED, tmp_path / "file", *allowed(unit)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    before, after = done.stdout.split()
    assert before == after == "True"


@pytest.mark.parametrize("unit", SERVICES)
def test_what_is_dirty_in_the_machine_can_be_read(unit):
    """/proc/vmstat is not there where only processes are."""
    assert "\nProcSubset=" not in (UNITS / unit).read_text()
