"""The cloud, shown whole: three nodes on this machine, and a guest that moves between them.

It makes a bootable image, compresses it, puts it behind a web server, and starts three nodes (each
with an sshd, a libvirtd and a network of its own, in namespaces) and the nbdserve that serves them.
Then it types what an operator types. Everything it makes lies under build/demo-minicloud, and every
process it started is ended, however it ends itself. Needs root.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "lib"))

from exportserver import ExportServer
from guest import MARKER, bootable_image
from lab import Lab, LabError, missing
from nginx import nginx

FOLDER = Path("build/demo-minicloud").resolve()
KERNEL = Path("build/tests/guest").resolve()  # downloaded once, for the tests' guests too
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MINICLOUD = Path(sys.executable).with_name("minicloud")
INVENTORY = """\
[nbd]
address = "{address}"
port = {port}
control = "{control}"
overlays = "{overlays}"

[defaults]
memory = "128M"
network = "bridge:vmbr0"

[templates.tiny]
image = "{image}"
"""
NODE = """
[nodes.{name}]
host = "{address}"
user = "root"
key = "{key}"
reserve = "64M"
virt-type = "{virt_type}"
"""


class DemoError(Exception):
    """What went wrong, one line with the remedy."""


def main() -> int:
    """Run the demo; return the exit status."""
    for number in ENDINGS:
        signal.signal(number, end)
    if problem := missing():
        print(f"demo: {problem}", file=sys.stderr)
        return 1
    try:
        FOLDER.mkdir(parents=True, exist_ok=True)
        image = make_image()
        with cluster(image) as inventory:
            show(inventory)
    except (DemoError, LabError, OSError) as exc:
        print(f"demo: {exc}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as exc:
        words = shlex.join(map(str, exc.cmd))
        print(f"demo: {words} failed with status {exc.returncode}; try it again", file=sys.stderr)
        return 1
    print("\nIt works, and nothing of it is left running. Type next:\n")
    print("  .venv/bin/minicloud --help      # what else there is")
    print("  .venv/bin/minicloud --from-ssh-config '*' > minicloud.toml   # your own nodes")
    return 0


def end(number: int, _: object) -> NoReturn:
    """Leave by way of every `finally`, undisturbed by a second signal."""
    for ending in ENDINGS:
        signal.signal(ending, signal.SIG_IGN)
    print("demo: interrupted", file=sys.stderr)
    sys.exit(128 + number)


def say(text: str) -> None:
    """Announce a step."""
    print(f"\n== {text}", flush=True)


def make_image() -> Path:
    """Make a bootable disk of 48 MiB whose guests stay, in xz blocks of 4 MiB."""
    packed = FOLDER / "tiny.img.xz"
    if packed.exists():
        return packed
    say("making a bootable image (Debian's kernel and busybox), and compressing it")
    raw, fresh = FOLDER / "tiny.img", FOLDER / "tiny.new"
    bootable_image(raw, size=48 << 20, cache=KERNEL, words="guest.stay")
    with fresh.open("wb") as out:
        subprocess.run(
            ["xz", "-0", "-T0", "--block-size=4MiB", "--stdout", raw], stdout=out, check=True
        )
    raw.unlink()
    fresh.rename(packed)
    return packed


@contextmanager
def cluster(image: Path) -> Iterator[Path]:
    """Have nodes, a web server and nbdserve for the time of the block; give the inventory."""
    say("starting three nodes, a web server with the image, and nbdserve")
    run = FOLDER / "run"
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir()
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(run / "lab", 3, cache=FOLDER / "capabilities"))
        stack.enter_context(lab.hub.entered())
        web = stack.enter_context(nginx(run / "web"))
        (web.files / image.name).symlink_to(image)
        server = ExportServer(run / "nbdserve", lab.hub.address)
        stack.callback(server.stop)
        server.start()
        inventory = run / "minicloud.toml"
        text = INVENTORY.format(
            address=server.address, port=server.port, control=server.control,
            overlays=server.overlays, image=web.url(image.name),
        )  # fmt: skip
        for node in lab.nodes.values():
            text += NODE.format(
                name=node.name, address=node.address, key=lab.key, virt_type=lab.virt_type
            )
        inventory.write_text(text)
        os.environ |= {
            "MINICLOUD_CONFIG": str(inventory),
            "MINICLOUD_KNOWN_HOSTS": str(lab.known_hosts),
        }
        yield inventory


def show(inventory: Path) -> None:
    """Type what an operator types."""
    say(f"the inventory is {inventory.relative_to(Path.cwd())}:")
    print(inventory.read_text().partition("[nodes.n2]")[0].strip())
    say("what is there?")
    minicloud("status")
    say("a guest, started from the compressed image on the web server; nothing is downloaded first")
    minicloud("boot", "tiny", "n1:web1", f"--wait=console:{MARKER}")
    minicloud("list")
    say("to another node, while it runs")
    minicloud("migrate", "web1", "n2")
    minicloud("status")
    say("and away again, with its disk")
    minicloud("destroy", "web1")
    minicloud("gc", "--dry-run")


def minicloud(*words: str) -> None:
    """Show a command line, and run it."""
    print(f"\n$ minicloud {shlex.join(words)}", flush=True)
    done = subprocess.run([MINICLOUD, *words], check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise DemoError(f"minicloud {words[0]} ended with exit status {done.returncode}")


if __name__ == "__main__":
    sys.exit(main())
