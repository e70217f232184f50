"""`minicloud migrate` beside `virsh migrate --live`: the same guest, there and back.

Both are whole commands of the controller, which manages the migration over ssh to both nodes:
interpreter, logins and all. minicloud also checks both ends first, hands the guest's exclusive
export over and notes where it is; for virsh the handover is begun beforehand, off the clock.

Rounds are interleaved, as machines drift; the ratio of medians is what counts. Root and a lab of
two nodes on this machine (tests/lib/lab) are needed:

    make bench-migration BENCH_ARGS='--rounds 5'
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from exportserver import ExportServer
from guest import bootable_image, revision
from lab import Lab, Node, missing
from minicloud_command import minicloud
from movedguests import Guests

_TARGET = 1.5
_EXPORT = "guest/bench"
_INVENTORY = """
[nbd]
address = "{server.address}"
port = {server.port}
control = "{server.control}"
overlays = "{server.overlays}"
"""
_NODE = """
[nodes.{node.name}]
host = "{node.address}"
user = "root"
key = "{key}"
reserve = "64M"
virt-type = "qemu"
"""


def main() -> int:
    """Measure and print; the exit status says whether the target is met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", type=int, default=128, metavar="MIB", help="of the guest")
    arguments = parser.parse_args()
    if problem := missing():
        print(f"migration: {problem}", file=sys.stderr)
        return 2
    return asyncio.run(_measure(arguments.rounds, arguments.memory))


async def _measure(rounds: int, memory: int) -> int:
    by_virsh: list[float] = []
    by_minicloud: list[float] = []
    async with _scene(memory) as guests:
        first, second = guests.lab.nodes[1], guests.lab.nodes[2]
        for round_ in range(-1, rounds):  # the first one warms both
            virsh = await _by_virsh(guests, first, second)
            ours = _by_minicloud(first)
            if round_ >= 0:
                by_virsh.append(virsh)
                by_minicloud.append(ours)
                print(f"round {round_ + 1}: virsh {virsh:.2f} s, minicloud {ours:.2f} s")
    virsh, ours = statistics.median(by_virsh), statistics.median(by_minicloud)
    print(
        f"medians: virsh migrate --live {virsh:.2f} s, minicloud migrate {ours:.2f} s; "
        f"ratio {ours / virsh:.2f} (target: at most {_TARGET})"
    )
    return 0 if ours / virsh <= _TARGET else 1


@asynccontextmanager
async def _scene(memory: int) -> AsyncIterator[Guests]:
    """A guest that ticks on the first of two nodes."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="migration-")))
        scratch.chmod(0o755)
        cache = Path("build/tests/capabilities")
        cache.mkdir(parents=True, exist_ok=True)
        lab = stack.enter_context(Lab(scratch / "lab", 2, cache=cache))
        stack.enter_context(lab.hub.entered())
        server = ExportServer(scratch / "nbdserve", lab.hub.address)
        server.start()
        stack.callback(server.stop)
        inventory = scratch / "minicloud.toml"
        nodes = "".join(_NODE.format(node=node, key=lab.key) for node in lab.nodes.values())
        inventory.write_text(nodes + _INVENTORY.format(server=server))
        os.environ |= {
            "MINICLOUD_CONFIG": str(inventory),
            "MINICLOUD_KNOWN_HOSTS": str(lab.known_hosts),
            "HOME": str(scratch),
        }
        image = _image(Path("build/tests"))
        guests = Guests(lab, server, image, layers=(), memory=memory << 20)
        await guests.boot(lab.nodes[1], "bench")
        guests.says(lab.nodes[1], "bench", "^GUEST-TICK 1$")
        yield guests


def _image(build: Path) -> str:
    """Make the image the lab's tests use, or take theirs; as a path."""
    raw = build / f"tiny-{revision()}.img"
    if not raw.exists():
        bootable_image(raw, size=48 << 20, cache=build / "guest", spare=8 << 20, words="")
    return str(raw.resolve())


async def _by_virsh(guests: Guests, source: Node, target: Node) -> float:
    await guests.storage.hand_over(_EXPORT, seconds=60)
    begun = time.monotonic()
    subprocess.run(
        ["virsh", "-q", "-c", guests.lab.uri(source), "migrate", "--live", "bench",
         guests.lab.uri(target), f"tcp://{target.address}"],
        check=True, timeout=120, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    took = time.monotonic() - begun
    await guests.until_alone("bench")
    await guests.storage.end_handover(_EXPORT)
    return took


def _by_minicloud(target: Node) -> float:
    begun = time.monotonic()
    told = minicloud("migrate", "bench", target.name)
    took = time.monotonic() - begun
    if told.status:
        raise RuntimeError(told.err)
    return took


if __name__ == "__main__":
    sys.exit(main())
