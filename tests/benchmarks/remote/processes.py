"""Child processes: started so that they end with us, measured with all their descendants."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

__all__ = ["Usage", "finished", "running", "usage"]

_LOOK = 0.1  # seconds between two looks at the memory of what runs
_TICKS = os.sysconf("SC_CLK_TCK")
_PATH = f"/usr/sbin:/usr/bin:/sbin:/bin:{os.environ.get('PATH', '')}"


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds (user and system), and the most memory resident, in bytes."""

    cpu: float
    rss: int


@contextlib.contextmanager
def running(
    argv: Sequence[object],
    *,
    log: Path,
    stdout: IO[bytes] | int | None = None,
    env: dict[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command until the block ends; it ends with this process too, however that ends.

    Args:
        argv: the command.
        log: what it says is appended here.
        stdout: where its output goes instead, as for Popen.
        env: variables to add.
    """
    with log.open("ab") as file:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *map(str, argv)],
            stdin=subprocess.DEVNULL, stdout=file if stdout is None else stdout, stderr=file,
            env={**os.environ, "PATH": _PATH, **(env or {})}, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        _end(process)
        if process.stdout is not None:
            process.stdout.close()


def finished(argv: Sequence[object], *, log: Path, within: float) -> Usage:
    """Run a command to its end, and tell what it and its descendants used.

    The memory is what was seen while it ran: wait4(2) tells that of this process, where it is more.

    Raises:
        RuntimeError: it failed, or took longer than `within` seconds.
    """
    began = time.monotonic()
    rss, looked = 0, began
    with running(argv, log=log) as process:
        while True:
            pid, status, used = os.wait4(process.pid, os.WNOHANG)
            if pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                break
            now = time.monotonic()
            if now > began + within:
                raise RuntimeError(f"{argv[0]} took longer than {within:.0f} s")
            if now > looked + _LOOK:
                rss, looked = max(rss, usage(process.pid).rss), now
            time.sleep(0.005)
    if process.returncode:
        raise RuntimeError(f"{argv[0]} failed with {process.returncode}: {_last_words(log)}")
    return Usage(used.ru_utime + used.ru_stime, rss)


def usage(pid: int) -> Usage:
    """Tell what a running process and its descendants have used so far (proc(5))."""
    cpu, rss = 0.0, 0
    for member in _tree(pid):
        with contextlib.suppress(OSError):  # it ended meanwhile
            fields = _stat(member)
            cpu += sum(map(int, fields[11:15])) / _TICKS  # with those it has waited for
            for line in Path(f"/proc/{member}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    rss += int(line.split()[1]) * 1024
    return Usage(cpu, rss)


def _tree(pid: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    found = [pid]
    for member in found:
        found += parents.get(member, [])
    return found


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third on; the second may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
