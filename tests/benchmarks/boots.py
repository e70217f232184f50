"""`minicloud boot` to a guest's marker, beside qemu-system started by hand on the same export.

Both guests have a copy-on-write export of the same xz image over HTTP, new for each boot, over one
chain that is kept open, so that both find it equally warm. By hand it is qemu-system alone, with
the disk and a serial port; the export is there already, and the time counts from its start.
minicloud's time counts from the command: inventory, ssh, libvirt, export, domain, start.

Rounds are interleaved, as machines drift; the ratio of medians is what counts. Root and a lab of
one node on this machine (tests/lib/lab) are needed:

    make bench-boot BENCH_ARGS='--rounds 5'
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from exportserver import ExportServer
from guest import MARKER, bootable_image, revision
from lab import Lab, Node, missing
from minicloud_command import minicloud
from nginx import nginx

_TARGET = 1.2
_MEMORY = 128  # MiB
_INVENTORY = """
[nodes.n1]
host = "{node}"
user = "root"
key = "{key}"
reserve = "64M"
virt-type = "qemu"

[nbd]
address = "{server.address}"
port = {server.port}
control = "{server.control}"
overlays = "{server.overlays}"

[defaults]
memory = "{memory}M"
network = "none"

[templates.tiny]
image = "{image}"
layers = ["xz"]
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """What both ways share.

    Attributes:
        node: where the guests run.
        server: of their disks.
        image: URL of the image.
    """

    node: Node
    server: ExportServer
    image: str


def main() -> int:
    """Measure and print; the exit status says whether the target is met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if problem := missing():
        print(f"boots: {problem}", file=sys.stderr)
        return 2
    by_hand: list[float] = []
    by_minicloud: list[float] = []
    with _scene(Path("build/tests")) as scene:
        for round_ in range(-1, arguments.rounds):  # the first one warms both
            hand, ours = _by_hand(scene), _by_minicloud()
            if round_ >= 0:
                by_hand.append(hand)
                by_minicloud.append(ours)
                print(f"round {round_ + 1}: qemu-system {hand:.2f} s, minicloud {ours:.2f} s")
    ratio = statistics.median(by_minicloud) / statistics.median(by_hand)
    print(
        f"medians: qemu-system {statistics.median(by_hand):.2f} s, "
        f"minicloud boot {statistics.median(by_minicloud):.2f} s; ratio {ratio:.2f} "
        f"(target: at most {_TARGET})"
    )
    return 0 if ratio <= _TARGET else 1


@contextmanager
def _scene(build: Path) -> Iterator[Scene]:
    build.mkdir(parents=True, exist_ok=True)
    image = _image(build)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="boots-")))
        scratch.chmod(0o755)
        lab = stack.enter_context(Lab(scratch / "lab", 1, cache=build / "capabilities"))
        stack.enter_context(lab.hub.entered())
        web = stack.enter_context(nginx(scratch / "web"))
        (web.files / "tiny.img.xz").symlink_to(image.resolve())
        server = ExportServer(scratch / "nbdserve", lab.hub.address)
        server.start()
        stack.callback(server.stop)
        scene = Scene(lab.nodes[1], server, web.url("tiny.img.xz"))
        server.add("warm", "--layer", "xz", "http", scene.image)
        inventory = scratch / "minicloud.toml"
        inventory.write_text(
            _INVENTORY.format(
                node=scene.node.address, key=lab.key, server=server, memory=_MEMORY,
                image=scene.image,
            )
        )  # fmt: skip
        os.environ |= {
            "MINICLOUD_CONFIG": str(inventory),
            "MINICLOUD_KNOWN_HOSTS": str(lab.known_hosts),
            "HOME": str(scratch),
        }
        yield scene


def _image(build: Path) -> Path:
    """Make the image the lab's tests use, or take theirs."""
    raw = build / f"tiny-{revision()}.img"
    packed = raw.with_suffix(".img.xz")
    if not packed.exists():
        bootable_image(raw, size=48 << 20, cache=build / "guest", spare=8 << 20, words="")
        with packed.open("wb") as out:
            subprocess.run(
                ["xz", "-0", "-T0", "--block-size=4MiB", "--stdout", raw], stdout=out, check=True
            )
    return packed


def _by_hand(scene: Scene) -> float:
    server, node = scene.server, scene.node
    overlay = server.overlays / "byhand.cow"
    server.add("byhand", "--layer", f"cow:path={overlay}", "--layer", "xz", "http", scene.image)
    disk = f"nbd://{server.address}:{server.port}/byhand"
    argv = [
        "qemu-system-x86_64", "-machine", "q35,accel=tcg", "-cpu", "max", "-m", _MEMORY,
        "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio",
        "-drive", f"file={disk},format=raw,if=virtio,cache=none,discard=unmap",
    ]  # fmt: skip
    begun = time.monotonic()
    with subprocess.Popen(
        node.argv(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if MARKER.encode() in line:
                break
        else:
            raise RuntimeError("the guest said no marker")
        took = time.monotonic() - begun
        process.kill()
    server.remove("byhand")
    overlay.unlink()
    return took


def _by_minicloud() -> float:
    begun = time.monotonic()
    told = minicloud("boot", "tiny", "n1:bench", f"--wait=console:{MARKER}")
    took = time.monotonic() - begun
    if told.status:
        raise RuntimeError(told.err)
    told = minicloud("destroy", "bench")
    if told.status:
        raise RuntimeError(told.err)
    return took


if __name__ == "__main__":
    sys.exit(main())
