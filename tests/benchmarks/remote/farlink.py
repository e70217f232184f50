"""A distant mirror on one machine: two network namespaces joined by a slow, long link.

By hand, as root:

    PYTHONPATH=tests/benchmarks python3 -m remote.farlink start --rtt 40 --mbit 100
    nsenter --net=/run/netns/farlink-srv nginx …       its address is 10.77.0.1
    nsenter --net=/run/netns/farlink-cli nbdserve …    its address is 10.77.0.2
    PYTHONPATH=tests/benchmarks python3 -m remote.farlink stop

Files and Unix sockets are those of the machine. The root namespace gets no device, no route and no
address. A link that was left behind under the same name is taken down first.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from remote.packetpipe import DEVICE

__all__ = ["CLIENT", "SERVER", "FarLink", "farlink", "own_name"]

SERVER, CLIENT = "10.77.0.1", "10.77.0.2"

_QUEUE = 1024  # KiB: two bandwidth-delay products of the default link, as routers have
# Every connection starts as the first one did: what TCP learnt of the way would make a trial depend
# on the trials before it (tcp_metrics(8)).
_FORGET = "echo 1 > /proc/sys/net/ipv4/tcp_no_metrics_save"
_PACKAGES = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class FarLink:
    """What the link is; and where its two ends are."""

    name: str = "farlink"
    rtt: float = 40  # milliseconds
    mbit: float = 100
    queue: int = _QUEUE
    loss: float = 0  # percent

    @property
    def server(self) -> list[str]:
        """What a command begins with to run at the server's end."""
        return self._enter("srv")

    @property
    def client(self) -> list[str]:
        """What a command begins with to run at the client's end."""
        return self._enter("cli")

    def start(self) -> subprocess.Popen[bytes]:
        """Make the link; return the pipe, which `stop` ends and the caller waits for."""
        self.stop()
        try:
            return self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Take the link down, whoever made it; what still runs at its ends loses its network."""
        with contextlib.suppress(OSError, ValueError):
            pid = int(self._pidfile.read_text())
            if b"remote.packetpipe" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGTERM)
        self._pidfile.unlink(missing_ok=True)
        for side in ("srv", "cli"):
            if Path(f"/run/netns/{self.name}-{side}").exists():
                _ip("netns", "del", f"{self.name}-{side}")

    @property
    def _pidfile(self) -> Path:
        return Path(f"/run/{self.name}.pid")

    def _enter(self, side: str) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.name}-{side}"]

    def _start(self) -> subprocess.Popen[bytes]:
        ends = [f"{self.name}-srv", f"{self.name}-cli"]
        for end in ends:
            _ip("netns", "add", end)
        facts = [str(fact) for fact in (self.rtt, self.mbit, self.queue, self.loss)]
        pipe = subprocess.Popen(
            [sys.executable, "-m", "remote.packetpipe", *ends, *facts],
            env={**os.environ, "PYTHONPATH": str(_PACKAGES)}, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._pidfile.write_text(str(pipe.pid))
        # a link is not slower on a busy machine
        os.sched_setscheduler(pipe.pid, os.SCHED_RR, os.sched_param(1))
        assert pipe.stdout is not None
        with pipe.stdout as said:
            ready = said.readline() == b"ready\n"
        if not ready:
            raise RuntimeError("the link did not start; it needs root and /dev/net/tun")
        for end, here, there in ((ends[0], SERVER, CLIENT), (ends[1], CLIENT, SERVER)):
            _ip("-n", end, "link", "set", "lo", "up")
            _ip("-n", end, "addr", "add", here, "peer", there, "dev", DEVICE)
            _ip("-n", end, "link", "set", DEVICE, "mtu", "1500", "txqueuelen", "10000", "up")
        for enter in (self.server, self.client):
            subprocess.run([*enter, "sh", "-c", _FORGET], check=True, stdin=subprocess.DEVNULL)
        return pipe


def own_name(purpose: str) -> str:
    """Return a name for a link of this process; links of processes that are gone are taken down."""
    for place in Path("/run/netns").glob(f"{purpose}-*-srv"):
        name = place.name.removesuffix("-srv")
        if not Path("/proc", name.rsplit("-", 1)[1]).exists():
            FarLink(name).stop()
    return f"{purpose}-{os.getpid()}"


@contextlib.contextmanager
def farlink(link: FarLink) -> Iterator[FarLink]:
    """Keep a link up until the block ends."""
    pipe = link.start()
    try:
        yield link
    finally:
        link.stop()
        pipe.wait()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, stdin=subprocess.DEVNULL)


def main() -> None:
    """Start or stop a link by hand."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Verbatim)
    parser.add_argument("verb", choices=["start", "stop"])
    parser.add_argument("--name", default="farlink", help="several links at once have several")
    parser.add_argument("--rtt", type=float, default=40, help="milliseconds (default 40)")
    parser.add_argument("--mbit", type=float, default=100, help="each way (default 100)")
    parser.add_argument("--queue", type=int, default=_QUEUE, help="KiB before the link")
    parser.add_argument("--loss", type=float, default=0, help="percent of the packets")
    given = vars(parser.parse_args())
    verb = given.pop("verb")
    link = FarLink(**given)
    if verb == "stop":
        link.stop()
        return
    link.start()
    print(f"server, {SERVER}: {' '.join(link.server)} COMMAND")
    print(f"client, {CLIENT}: {' '.join(link.client)} COMMAND")


_Verbatim = argparse.RawDescriptionHelpFormatter

if __name__ == "__main__":
    main()
