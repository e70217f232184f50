"""One node: switched on and off, its daemons stopped and hung, its cable pulled.

What a method breaks, another one mends, and `restore` mends all of it: after `restore` a node is as
after its first boot, without a guest.
"""

import contextlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .files import NodeFiles
from .network import Hub, Namespace, mac_of
from .process import ENVIRONMENT, LabError, Lifeline, Process, until

__all__ = ["DAEMONS", "Node"]

DAEMONS = {
    "virtlogd": ["virtlogd"],
    "libvirtd": ["libvirtd"],
    "sshd": ["/usr/sbin/sshd", "-D", "-e"],
}
_INIT = Path(__file__).with_name("init.py")
_MEMINFO = ("/proc/meminfo", "/sys/devices/system/node/node0/meminfo")

# libvirt's remote_protocol.x: length, program, version, procedure (AUTH_LIST), call, serial, ok
_ASK_LIBVIRTD = struct.pack(">IIIiiIi", 28, 0x20008086, 1, 66, 0, 0, 0)


class Node:
    """Node number I of a lab: name nI, address NET.I.

    Attributes:
        name: also its host name.
        address: in the hub's network.
        mac: what a magic packet that wakes it holds.
        files: stay over power cuts.
        init: its pid 1 as seen from here, or None while it was never switched on.
    """

    def __init__(
        self, number: int, *, hub: Hub, lifeline: Lifeline, files: NodeFiles, capabilities: Path,
        has_kvm: bool,
    ) -> None:  # fmt: skip
        self.number = number
        self.name = f"n{number}"
        self.address = f"{hub.net}.{number}"
        self.mac = mac_of(number)
        self.files = files
        self.init = Process.written(files.state)
        self._hub = hub
        self._lifeline = lifeline
        self._capabilities = capabilities
        self._has_kvm = has_kvm
        self._broken: set[str] = set()  # what `restore` has to mend

    def is_on(self) -> bool:
        """Whether it has power; a node may also have switched itself off."""
        return self.init is not None and self.init.is_alive()

    def on(self) -> None:
        """Boot it, and wait until sshd and libvirtd answer."""
        if self.is_on():
            raise LabError(f"{self.name} is on already")
        self._boot()
        self.init = Process.written(self.files.state)
        self._hub.plug(self.number, Namespace(self.init))
        self._start(*DAEMONS)
        self._broken = set()
        for daemon in DAEMONS:
            self._wait_for(daemon)

    def off(self) -> None:
        """Cut its power: daemons and guests are gone at once, files stay, the cable is dead."""
        if self.init is not None:
            self.init.end()
        self._hub.unplug(self.number)

    def cut(self) -> None:
        """Pull its cable; `heal` plugs it in again."""
        self._breaks("network")
        self._hub.cut(self.number)

    def blackhole(self) -> None:
        """Have the network swallow whatever is for it or from it; `heal` undoes it."""
        self._breaks("network")
        self._hub.blackhole(self.number)

    def slow(self, kbit: int) -> None:
        """Limit what it receives, in kbit/s; `heal` undoes it."""
        self._breaks("network")
        self._hub.slow(self.number, kbit)

    def heal(self) -> None:
        """Undo `cut`, `blackhole` and `slow`."""
        self._hub.heal(self.number)

    def hang(self, what: str) -> None:
        """Stop by SIGSTOP: a daemon, all guests (`qemu`), or every process (`all`).

        Of sshd it is the listener: connections that exist go on.
        """
        self._breaks("hung")
        self._signal(what, "STOP")

    def unhang(self, what: str) -> None:
        """Let it go on."""
        self._signal(what, "CONT")

    def stop(self, daemon: str) -> None:
        """End a daemon, even one that hangs, and wait until it is gone."""
        self._breaks(daemon)
        pid = self._pid(daemon)
        self.run(["sh", "-c", f"kill -TERM {pid} && kill -CONT {pid} || true"])
        gone = Path(self._seen(f"/proc/{pid}"))
        until(lambda: not gone.exists(), f"{daemon} of {self.name} to end")

    def start(self, daemon: str) -> None:
        """Start a daemon that was stopped, and wait until it answers."""
        self._start(daemon)
        self._wait_for(daemon)

    def report_memory(self, *, total: int, free: int) -> None:
        """Have the node's kernel report this much memory, in MiB, until its next boot."""
        self._breaks("memory")
        fields = {"MemTotal": total, "MemFree": free, "MemAvailable": free}
        for path in filter(os.path.exists, _MEMINFO):
            text = Path(path).read_text()
            for field, mib in fields.items():
                text = re.sub(rf"\b{field}: .*", f"{field}: {mib << 10} kB", text)
            fake = f"/run/lab/{path.replace('/', '-')}"
            self.run(["sh", "-c", f"umount {path}; cat > {fake}; mount --bind {fake} {path}"], text)

    def change_host_key(self) -> None:
        """Give sshd another host key, as a node that was installed anew has."""
        self._breaks("key")
        self.files.change_host_key()
        self._restart("sshd")

    def restore_host_key(self) -> None:
        """Put the first host key back."""
        self.files.restore_host_key()
        self._restart("sshd")

    def argv(self, words: Sequence[object]) -> list[str]:
        """Turn a command line into one that runs on the node."""
        if not self.is_on():
            raise LabError(f"{self.name} is off")
        return [
            "nsenter", f"--target={self.init.pid}", "--mount", "--uts", "--ipc", "--net", "--pid",
            "--wd=/", *map(str, words),
        ]  # fmt: skip

    def run(self, words: Sequence[object], given: str = "") -> str:
        """Run a command on the node, and return what it prints; LabError if it fails."""
        done = subprocess.run(
            self.argv(words), input=given, capture_output=True, text=True, timeout=60,
            check=False, env=ENVIRONMENT,
        )  # fmt: skip
        if done.returncode != 0:
            raise LabError(f"{self.name}: {' '.join(map(str, words))}: {done.stderr.strip()}")
        return done.stdout

    def domains(self) -> set[str]:
        """Name all domains, active or not, without asking libvirtd, who may be hung."""
        active = Path(self._seen("/run/libvirt/qemu")).glob("*.xml")
        return {path.stem for path in active} | set(self.files.defined())

    def restore(self) -> None:
        """Mend whatever was broken here, and take all guests away."""
        if not self.is_on():
            self.off()
            self.on()
        if "network" in self._broken:
            self.heal()
        if "hung" in self._broken:
            self.unhang("all")
        for daemon in DAEMONS:
            if daemon in self._broken and not self._runs(daemon):
                self.start(daemon)
        if "key" in self._broken:
            self.restore_host_key()
        if "memory" in self._broken:
            self.run(["umount", *filter(os.path.exists, _MEMINFO)])
        self._broken = set()
        if domains := sorted(self.domains()):
            self._remove(domains)

    def _remove(self, domains: Sequence[str]) -> None:
        """Take domains away, if need be with the node's power, whatever state they are in."""
        lines = [f"virsh destroy {name}; virsh undefine --nvram {name}" for name in domains]
        with contextlib.suppress(LabError, subprocess.TimeoutExpired):
            self.run(["timeout", "10", "sh", "-c", "\n".join([*lines, "true"])])
        if self.domains():
            self.off()
            self.files.forget_domains()
            self.on()

    def _boot(self) -> None:
        description = {
            "hostname": self.name,
            "state": str(self.files.state),
            "binds": self.files.binds(self._capabilities),
            "kvm": self._has_kvm,
        }
        ours, theirs = os.pipe()
        try:
            with (self.files.log / "console.log").open("ab") as console:
                self._lifeline.spawn(
                    ["unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork",
                     "--kill-child=KILL", "--", sys.executable, "-I", "-S", str(_INIT),
                     json.dumps(description), str(theirs)],
                    pass_fds=(theirs,), output=console,
                )  # fmt: skip
        finally:
            os.close(theirs)
        with open(ours, "rb") as report:
            is_ready = report.readline()  # unshare holds the pipe too: no end while it lives
        if not is_ready:
            raise LabError(f"{self.name} did not boot; see {self.files.log}/console.log")

    def _start(self, *daemons: str) -> None:
        lines = [
            f"setsid {' '.join(DAEMONS[daemon])} </dev/null >>/var/log/libvirt/{daemon}.out 2>&1 &"
            f" echo $! >/run/lab/{daemon}.pid"
            for daemon in daemons
        ]
        self.run(["sh", "-c", "\n".join(lines)])

    def _restart(self, daemon: str) -> None:
        self.stop(daemon)
        self.start(daemon)

    def _wait_for(self, daemon: str) -> None:
        answers = {"virtlogd": self._runs, "libvirtd": self._libvirtd_answers}
        answer = answers.get(daemon, self._sshd_answers)
        try:
            until(lambda: answer(daemon), f"{daemon} of {self.name} to answer")
        except LabError as exc:  # the logs go with the lab
            said = [path.read_text() for path in sorted(self.files.log.glob(f"{daemon}.*"))]
            raise LabError(f"{exc}: {''.join(said)[-1000:].strip()}") from None

    def _runs(self, daemon: str) -> bool:
        return Path(self._seen(f"/proc/{self._pid(daemon)}")).exists()

    def _sshd_answers(self, _: str) -> bool:
        with (
            contextlib.suppress(OSError),
            Namespace(self.init).entered(),
            socket.create_connection((self.address, 22), timeout=5) as sock,
        ):
            return sock.recv(4) == b"SSH-"
        return False

    def _libvirtd_answers(self, _: str) -> bool:
        """Whether it serves, which it does when it has asked qemu what that can do."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(30)
            sock.connect(self._seen("/run/libvirt/libvirt-sock"))
            sock.sendall(_ASK_LIBVIRTD)
            return bool(sock.recv(4))
        return False

    def _signal(self, what: str, name: str) -> None:
        if what == "all":
            self.run(["sh", "-c", f"kill -{name} -1"])  # but for pid 1 and the asking shell
        elif what == "qemu":
            for domain in Path(self._seen("/run/libvirt/qemu")).glob("*.xml"):
                pid = domain.with_suffix(".pid").read_text().strip()
                self.run(["kill", f"-{name}", pid])
        elif what in DAEMONS:
            self.run(["kill", f"-{name}", self._pid(what)])
        else:
            raise LabError(f"no process {what}; there are {', '.join(DAEMONS)}, qemu and all")

    def _pid(self, daemon: str) -> str:
        """Return a daemon's pid, as the node counts."""
        return Path(self._seen(f"/run/lab/{daemon}.pid")).read_text().strip()

    def _seen(self, path: str) -> str:
        """Return the path from here of what the node sees at `path`."""
        if not self.is_on():
            raise LabError(f"{self.name} is off")
        return f"/proc/{self.init.pid}/root{path}"

    def _breaks(self, what: str) -> None:
        self._broken.add(what)
