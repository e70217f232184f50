"""The hub: a network namespace with a bridge, and the cables from it to the nodes.

Whatever happens to a cable happens at the hub's end, so that a node's guests, who sit on the
node's own bridge, lose the network as the node does.
"""

import contextlib
import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from .process import LabError, Lifeline, Process

__all__ = ["Hub", "Namespace", "mac_of"]

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
# arp(7): who has switched itself off is missed after some 5 s, not after 40
_NEIGHBOURS = {"base_reachable_time_ms": 1000, "delay_first_probe_time": 1}
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """The network namespace of a process."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.path = Path(f"/proc/{process.pid}/ns/net")

    def argv(self, words: Sequence[str]) -> list[str]:
        """Turn a command line into one that runs in there, under the same pid."""
        return ["nsenter", f"--net={self.path}", *map(str, words)]

    def ip(self, *lines: str) -> None:
        """Run `ip` for each of `lines`, in one process."""
        _run(self.argv(["ip", "-batch", "-"]), "\n".join(lines))

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Have this thread in there for the time of the block.

        It holds for sockets it makes, processes it starts, and threads it starts meanwhile; other
        threads stay where they are.
        """
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            inside = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                _setns(inside)
            finally:
                os.close(inside)
            try:
                yield
            finally:
                _setns(before)
        finally:
            os.close(before)


class Hub(Namespace):
    """The hub's namespace, at address NET.254; node I is plugged in at its port vI."""

    def __init__(self, process: Process, net: str) -> None:
        super().__init__(process)
        self.net = net
        self.address = f"{net}.254"

    @classmethod
    def create(cls, lifeline: Lifeline, net: str) -> "Hub":
        """Make the namespace, held by a process that waits for the line's end."""
        hub = cls(_in_thread(lambda: _spawn_holder(lifeline)), net)
        hub.ip(
            "link set lo up",
            f"link add br0 address {mac_of(254)} type bridge forward_delay 0",
            f"addr add {hub.address}/24 dev br0",
            "link set br0 up",
            "route add 255.255.255.255 dev br0",  # of magic packets; there is no default route
        )
        with hub.entered():
            for name, value in _NEIGHBOURS.items():
                Path(f"/proc/sys/net/ipv4/neigh/br0/{name}").write_text(str(value))
        return hub

    def plug(self, number: int, node: Namespace) -> None:
        """Lay a cable to a node's namespace, and make its bridge vmbr0, which guests join."""
        self.unplug(number)
        self.ip(
            f"link add v{number} type veth peer name eth0 netns {node.process.pid}",
            f"link set v{number} master br0 up",
        )
        node.ip(
            "link set lo up",
            f"link add vmbr0 address {mac_of(number)} type bridge forward_delay 0",
            "link set eth0 master vmbr0 up",
            f"addr add {self.net}.{number}/24 dev vmbr0",
            "link set vmbr0 up",
        )

    def unplug(self, number: int) -> None:
        """Take the cable away, if there is one, and what the hub knew of who was there."""
        # the kernel takes it away too, some time after the end of the node's namespace
        if not self._succeeds("ip", "link", "del", f"v{number}") and self._has(number):
            raise LabError(f"v{number} cannot be taken away")
        self._forget(number)

    def cut(self, number: int) -> None:
        """Take the carrier away: nobody answers ARP, so clients are told that there is no route."""
        self.ip(f"link set v{number} down")
        self._forget(number)

    def blackhole(self, number: int) -> None:
        """Drop everything both ways while the addresses still resolve: clients wait in vain."""
        self.ip(
            f"neigh replace {self.net}.{number} lladdr {mac_of(number)} dev br0 nud permanent",
            f"link set v{number} nomaster",
        )

    def slow(self, number: int, kbit: int) -> None:
        """Limit what a node receives, in kbit/s."""
        shape = ["root", "tbf", "rate", f"{kbit}kbit", "burst", "32kb", "latency", "50ms"]
        _run(self.argv(["tc", "qdisc", "replace", "dev", f"v{number}", *shape]))

    def heal(self, number: int) -> None:
        """Undo `cut`, `blackhole` and `slow`."""
        if not self._succeeds("ip", "link", "set", f"v{number}", "master", "br0", "up"):
            return  # it goes with its node, some time after that is off
        self._forget(number)
        self._succeeds("tc", "qdisc", "del", "dev", f"v{number}", "root")  # if it was slow

    def _has(self, number: int) -> bool:
        return self._succeeds("ip", "link", "show", f"v{number}")

    def _succeeds(self, *words: str) -> bool:
        done = subprocess.run(self.argv(words), capture_output=True, check=False)
        return done.returncode == 0

    def _forget(self, number: int) -> None:
        """Have the next packet ask by ARP anew."""
        self.ip(f"neigh flush dev br0 to {self.net}.{number} nud all")


def mac_of(number: int) -> str:
    """Return the address of a node's bridge: what a magic packet for it holds."""
    return f"52:54:00:6c:61:{number:02x}"


def _spawn_holder(lifeline: Lifeline) -> Process:
    _check(_libc.unshare(_CLONE_NEWNET), "unshare")
    return lifeline.spawn(["cat"], output=subprocess.DEVNULL)


def _setns(descriptor: int) -> None:
    _check(_libc.setns(descriptor, _CLONE_NEWNET), "setns")


def _check(done: int, what: str) -> None:
    if done != 0:
        raise LabError(f"{what}: {os.strerror(ctypes.get_errno())}")


def _in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread that may leave this process's namespaces for good."""
    outcome: list[T | BaseException] = []

    def body() -> None:
        try:
            outcome.append(work())
        except BaseException as exc:  # noqa: BLE001 - handed to the thread that waits for it
            outcome.append(exc)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    (result,) = outcome
    if isinstance(result, BaseException):
        raise result
    return result


def _run(argv: Sequence[str], given: str = "") -> None:
    done = subprocess.run(argv, input=given, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"{' '.join(argv)} {given!r}: {done.stderr.strip()}")
