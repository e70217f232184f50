"""Pid 1 of a node: gives it its own view of the machine, reports, reaps, waits for the end.

A program on its own, run by the bare interpreter: `init.py DESCRIPTION REPORT`, with JSON
{"hostname", "state", "binds": {target: source}, "kvm"} and a descriptor. The first thing it does is
to write its pid, as seen from outside, and start time into the file `state`, so that whoever takes
down what another one left half made finds it; the last is to write a line to the descriptor.

It ends, and the node with it, when its standard input does, or when somebody on the node asks
System V's init for runlevel 0, which is what `poweroff` does where there is no systemd. It must
reap: libvirt waits for the pid of a guest to be gone.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC = 2, 4, 8, 4096, 16384
_MNT_DETACH = 2
_DEVICES = {
    "null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9),
    "tty": (5, 0), "net/tun": (10, 200),
}  # fmt: skip
_KVM = {"kvm": (10, 232)}
_LINKS = {
    "fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx",
}  # fmt: skip
# bash reads it for each command that comes by ssh: what takes a lock in the home all nodes share
# (`pyenv init`) leaves it behind in a power cut, and every node's next command waits for it
_BASHRC = Path("~root/.bashrc").expanduser()
_REQUEST = struct.Struct("=iii372x")  # initreq.h of System V's init: magic, command, runlevel
_MAGIC, _CHANGE_RUNLEVEL = 0x03091969, 1


def main(description: Mapping[str, object], report: int) -> None:
    """Be pid 1 until the node's end."""
    signal.signal(signal.SIGCHLD, reap)
    write_state(Path(description["state"]))
    socket.sethostname(description["hostname"])
    mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    detach_all("/sys")
    mount("sysfs", "/sys", "sysfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    make_dev(_DEVICES | _KVM if description["kvm"] else _DEVICES)
    for target, source in description["binds"].items():
        if not Path(target).exists():
            Path(target).mkdir(parents=True)
        mount(source, target, None, _MS_BIND)
    if _BASHRC.exists():
        mount("/dev/null", str(_BASHRC), None, _MS_BIND)
    mount("run", "/run", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755")
    for folder in ("sshd", "lab", "lock", "libvirt"):
        Path("/run", folder).mkdir()
    os.mkfifo("/run/initctl", 0o600)
    requests = os.open("/run/initctl", os.O_RDWR)  # for writing too: it never sees an end
    os.write(report, b"ready\n")
    os.close(report)
    if await_end(requests):
        shut_down()


def write_state(path: Path) -> None:
    """Write `PID STARTED`; /proc is still the one outside."""
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    fresh = path.with_suffix(".new")
    fresh.write_text(f"{Path('/proc/self').readlink()} {started}")
    fresh.rename(path)


def shut_down() -> None:
    """End everything in an orderly way, as far as it goes within two seconds; then the cable.

    The kernel takes its time to clear a namespace away; a machine without power is gone at once.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.kill(-1, signal.SIGTERM)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(-1, signal.SIGKILL))
    signal.alarm(2)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    signal.alarm(0)
    subprocess.run(["ip", "link", "set", "eth0", "down"], check=False)


def await_end(requests: int) -> bool:
    """Wait for the end of standard input (False), or for a request to shut down (True)."""
    while True:
        for readable in select.select([0, requests], [], [])[0]:
            data = os.read(readable, _REQUEST.size)
            if readable == 0 and not data:
                return False
            if readable == requests and len(data) == _REQUEST.size:
                magic, command, level = _REQUEST.unpack(data)
                if (magic, command) == (_MAGIC, _CHANGE_RUNLEVEL) and chr(level) in "06":
                    return True


def reap(*_: object) -> None:
    """Take note of the end of whatever fell to pid 1."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def make_dev(devices: Mapping[str, tuple[int, int]]) -> None:
    """Mount a /dev of this node's own.

    Every old mount below /dev goes first: libvirt moves what it finds listed there into a guest's
    own /dev, and fails on a mount that another one covers.
    """
    detach_all("/dev")
    mount("dev", "/dev", "tmpfs", _MS_NOSUID, "mode=755")
    for folder in ("pts", "shm", "net"):
        Path("/dev", folder).mkdir()
    os.umask(0)
    for name, number in devices.items():
        os.mknod(f"/dev/{name}", 0o666 | stat.S_IFCHR, os.makedev(*number))
    os.umask(0o022)
    for name, target in _LINKS.items():
        Path("/dev", name).symlink_to(target)
    mount("devpts", "/dev/pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=620,gid=5")
    mount("shm", "/dev/shm", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=1777")


def detach_all(top: str) -> None:
    """Unmount whatever is mounted at `top` or below, however many times."""
    while below := [point for point in mount_points() if f"{point}/".startswith(f"{top}/")]:
        for point in reversed(below):
            check(_libc.umount2(point.encode(), _MNT_DETACH), f"umount {point}")


def mount_points() -> list[str]:
    """List this namespace's mounts, in the order they were made."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line.split()[1] for line in lines]


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """Do what mount(2) does."""
    done = _libc.mount(
        source.encode(), target.encode(), kind and kind.encode(), flags, options.encode()
    )
    check(done, f"mount {target}")


def check(done: int, what: str) -> None:
    """Raise what errno tells."""
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), int(sys.argv[2]))
