"""`minicloud status` over three nodes, beside one node alone and beside virsh; and a hundred nodes.

The nodes are a lab on this machine, each with its own sshd and libvirtd. Rounds are interleaved,
medians are shown: of the whole command, interpreter and imports included, and of the asking alone,
from the first socket to the last row. The hundred nodes are ssh servers in this process, ten of
them dead. As root.

    make bench-cluster BENCH_ARGS='--rounds 3'
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab import Lab, missing
from minicloud.cluster import Cluster, Patience
from minicloud.errors import Reason
from sshnodes import Faults, Home, black_hole, free_port, serving

# Asks the nodes of its arguments as `status` does and prints the seconds that took.
_ASKING = """
import asyncio, sys, time
from pathlib import Path
from minicloud.cluster import Cluster, Patience
from minicloud.hypervisor.binding import libvirt_module
from minicloud.inventory.reading import read_inventory
inventory = read_inventory(Path(sys.argv[1]), ssh_config=Path(sys.argv[2]))
libvirt_module()
async def main():
    begun = time.perf_counter()
    async with Cluster(inventory, Patience()) as cluster:
        rows = await cluster.gather(
            lambda node: cluster.facts(node.name, with_origin=False), cluster.nodes(sys.argv[3:]))
    assert all(row.error is None for row in rows), rows
    print(time.perf_counter() - begun)
asyncio.run(main())
"""
_QUESTIONS = "hostname; version; nodeinfo; nodememstats; domstats --raw --state --balloon --vcpu"


class Contest:
    """What is compared, on one lab."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self._lab = lab
        self._names = [node.name for node in lab.nodes.values()]
        self._config = folder / "minicloud.toml"
        self._config.write_text(
            "".join(
                f'[nodes.{node.name}]\nhost = "{node.address}"\nuser = "root"\nkey = "{lab.key}"\n'
                for node in lab.nodes.values()
            )
        )
        self._ssh_config = folder / "ssh_config"
        self._ssh_config.write_text(f"Host *\n  UserKnownHostsFile {lab.known_hosts}\n")
        self._environment = os.environ | {"MINICLOUD_KNOWN_HOSTS": str(folder / "known_hosts")}

    def status(self, *names: str) -> float:
        """Run the command; return its seconds."""
        chosen = [word for name in names for word in ("--node", name)]
        return self._timed(
            "-m", "minicloud", "-c", self._config, "--ssh-config", self._ssh_config,
            "status", *chosen,
        )  # fmt: skip

    def asking(self, *names: str) -> float:
        """Ask as it does, in a fresh interpreter; return the seconds of the asking."""
        return float(self._ran("-c", _ASKING, self._config, self._ssh_config, *names))

    def slowest(self, ask: Callable[..., float]) -> float:
        """Ask each node alone; return the seconds of the slowest."""
        return max(ask(name) for name in self._names)

    def virsh(self) -> float:
        """Run one virsh a node, all at once."""
        begun = time.perf_counter()
        running = [
            subprocess.Popen(
                ["virsh", "-q", "-c", self._lab.uri(node), _QUESTIONS], stdout=subprocess.DEVNULL
            )
            for node in self._lab.nodes.values()
        ]
        statuses = [one.wait() for one in running]
        seconds = time.perf_counter() - begun
        assert not any(statuses)
        return seconds

    def libvirt(self) -> float:
        """Open qemu+ssh:// by libvirt-python in threads, all at once."""
        import libvirt

        def ask(uri: str) -> None:
            connection = libvirt.open(uri)
            connection.getInfo()
            connection.getMemoryStats(-1)
            connection.getAllDomainStats()
            connection.close()

        uris = [self._lab.uri(node) for node in self._lab.nodes.values()]
        begun = time.perf_counter()
        # made inside, so that its threads are born in the hub's network
        with ThreadPoolExecutor(len(uris)) as pool:
            list(pool.map(ask, uris))
        return time.perf_counter() - begun

    def _timed(self, *words: object) -> float:
        begun = time.perf_counter()
        self._ran(*words)
        return time.perf_counter() - begun

    def _ran(self, *words: object) -> str:
        return subprocess.run(
            [sys.executable, *map(str, words)], capture_output=True, text=True, check=True,
            env=self._environment,
        ).stdout  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", help="keep every figure in this file")
    arguments = parser.parse_args()
    if why := missing():
        sys.exit(why)
    with tempfile.TemporaryDirectory() as folder:
        with Lab(Path(folder) / "lab", 3) as lab, lab.hub.entered():
            seconds = _rounds(Contest(lab, Path(folder)), arguments.rounds)
        print(_table(seconds), flush=True)
        hundred = asyncio.run(_hundred(Path(folder)))
    print(hundred)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(seconds, indent=1) + "\n")


def _rounds(contest: Contest, rounds: int) -> dict[str, list[float]]:
    work: dict[str, Callable[[], float]] = {
        "command, three nodes": contest.status,
        "command, slowest single node": lambda: contest.slowest(contest.status),
        "virsh qemu+ssh, in parallel": contest.virsh,
        "asking, three nodes": contest.asking,
        "asking, slowest single node": lambda: contest.slowest(contest.asking),
        "libvirt-python qemu+ssh, in threads": contest.libvirt,
    }
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds + 1):
        for name, measure in work.items():
            seconds[name].append(measure())
    return {name: values[1:] for name, values in seconds.items()}  # the first one warms up


def _table(seconds: dict[str, list[float]]) -> str:
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    lines = [f"{'':36} {'median':>8} {'least':>8}"]
    lines += [
        f"{name:36} {medians[name] * 1000:5.0f} ms {min(values) * 1000:5.0f} ms"
        for name, values in seconds.items()
    ]
    for kind, peer in (
        ("command", "virsh qemu+ssh, in parallel"),
        ("asking", "libvirt-python qemu+ssh, in threads"),
    ):
        three = medians[f"{kind}, three nodes"]
        alone = three / medians[f"{kind}, slowest single node"]
        lines.append(
            f"{kind}: {alone:.2f} x the slowest single node (at most 1.5), "
            f"{three / medians[peer]:.2f} x {peer} (at most 0.5)"
        )
    return "\n".join(lines)


async def _hundred(folder: Path) -> str:
    """Ask a hundred nodes: six mute, two without sshd, two that let nobody in."""
    whole = 10.0
    home = Home(folder)
    async with contextlib.AsyncExitStack() as stack:
        ports = [await stack.enter_async_context(serving()) for _ in range(90)]
        ports += [stack.enter_context(black_hole()) for _ in range(6)]
        ports += [free_port(), free_port()]
        closed = [serving(Faults(lets_in=False)) for _ in range(2)]
        ports += [await stack.enter_async_context(one) for one in closed]
        nodes = [home.node(port, f"ham{n}") for n, port in enumerate(ports)]
        inventory = home.inventory(*nodes)
        async with Cluster(inventory, Patience(whole=whole), home.keys) as cluster:

            async def greet(node):
                return await (await cluster.session(node.name)).run(["true"])

            begun = time.perf_counter()
            rows = await cluster.gather(greet, nodes)
            took = time.perf_counter() - begun
    answers = sum(row.error is None for row in rows)
    late = sum(row.error is not None and row.error.reason is Reason.DEADLINE for row in rows)
    return (
        f"a hundred nodes, ten dead: {answers} answers and {100 - answers} reasons in {took:.2f} s "
        f"({late} by the deadline of {whole:g} s; at most {whole + 1:g} s)"
    )


if __name__ == "__main__":
    main()
