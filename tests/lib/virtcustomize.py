"""A virt-customize that changes nothing and writes down how it was called; and a machine's tools.

It is a shell script on a PATH: the outside, as minicloud sees it. What it does is told by files in
its folder: `status` to exit with (a second line is for the second run), `errors` to print, `hang`
to stay until it is ended, saying so and what it has started.
"""

import asyncio
import contextlib
import shutil
from pathlib import Path

from minicloud.inventory.customize import OPTIONS

__all__ = ["LATER", "OLD", "VirtCustomize", "greeting", "toolbox"]

_TOOLS = (
    "cat", "chmod", "cp", "env", "find", "head", "id", "ls", "ln", "mkdir", "mktemp", "mv", "rm",
    "sed", "setsid", "sh", "sleep", "stat", "tail", "tar", "touch", "tr", "uname", "wc",
)  # fmt: skip
_OWN = {"add", "format", "memsize", "smp", "no-network", "network", "commands-from-file"}
_SUBSCRIPTION = {"sm-attach", "sm-credentials", "sm-register", "sm-unregister"}

OLD = {*OPTIONS, *_OWN, "selinux-relabel"} - {"no-selinux-relabel", "tar-in", "chown"}
"""The words of guestfs-tools 1.48, Debian 12's."""

LATER = {*OPTIONS, *_OWN} - _SUBSCRIPTION
"""The words of guestfs-tools 1.56."""

_SCRIPT = r"""#!/bin/sh
told=@FOLDER@
case "$1" in
--version) echo "virt-customize @VERSION@"; exit 0 ;;
--help) cat "$told/help"; exit 0 ;;
esac
run=$told/run$(ls -d "$told"/run* 2>/dev/null | wc -l)
mkdir "$run"
for word; do echo "$word"; done > "$run/argv"
env > "$run/environment"
pwd > "$run/folder"
echo $PPID > "$run/parent"
find . -mindepth 1 -printf '%m %p\n' > "$run/modes"
find -L . -type f -exec sh -c 'mkdir -p "$1/seen/${2%/*}"; cp -p "$2" "$1/seen/$2"' sh "$run" {} \;
for one in /proc/[0-9]*; do cat "$one/cmdline" "$one/environ"; done 2>/dev/null |
    tr '\0' '\n' > "$run/processes"
echo "[   0.0] Examining the guest ..."
echo "[  12.5] Setting a random seed"
if [ -e "$told/hang" ]; then
    sleep 1000 &
    echo "[  13.0] hanging with $!"
    wait
fi
cat "$told/output" 2>/dev/null
cat "$told/errors" >&2 2>/dev/null
echo "[  27.0] Finishing off"
status=$(sed -n "$(ls -d "$told"/run* | wc -l)p" "$told/status" 2>/dev/null)
exit "${status:-0}"
"""


class Run:
    """How it was called, and by which process."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.argv = folder.joinpath("argv").read_text().splitlines()
        self.environment = dict(
            line.partition("=")[::2]
            for line in folder.joinpath("environment").read_text().splitlines()
        )
        self.folder = Path(folder.joinpath("folder").read_text().strip())
        self.parent = int(folder.joinpath("parent").read_text())
        self.modes = {
            name: mode
            for mode, _, name in (
                line.partition(" ") for line in folder.joinpath("modes").read_text().splitlines()
            )
        }
        self.processes = folder.joinpath("processes").read_text(errors="replace")

    @property
    def commands(self) -> str:
        return self.seen("commands").decode()

    def seen(self, name: str) -> bytes:
        """Return a file that was beside it, followed through links."""
        return self.path.joinpath("seen", name).read_bytes()


class VirtCustomize:
    """The script, and what it wrote down.

    Args:
        folder: an empty one, for all of it; `bin` in it goes on a PATH.
        words: options it has.
    """

    def __init__(self, folder: Path, words=frozenset(OLD), version: str = "1.48.2") -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        lines = [f"  --{word} <VALUE>    what it is" for word in sorted(words)]
        text = "virt-customize: customize a virtual machine\n\nOptions:\n  -a, --add <file>  it\n"
        folder.joinpath("help").write_text(text + "\n".join(lines) + "\n")
        path = self.bin / "virt-customize"
        path.write_text(_SCRIPT.replace("@FOLDER@", str(folder)).replace("@VERSION@", version))
        path.chmod(0o755)

    def tell(self, **files: str) -> None:
        """Write what it is to do: `status`, `errors`, `output`, `hang`."""
        for name, text in files.items():
            self.folder.joinpath(name).write_text(text)

    @property
    def runs(self) -> list[Run]:
        return [Run(path) for path in sorted(self.folder.glob("run*"))]


def toolbox(folder: Path) -> Path:
    """Make a PATH with what any machine has, and no virt-customize."""
    folder.mkdir()
    for tool in _TOOLS:
        found = shutil.which(tool)
        assert found is not None, f"{tool} is missing"
        folder.joinpath(tool).symlink_to(found)
    return folder


@contextlib.asynccontextmanager
async def greeting(words: bytes = b"NBDMAGICIHAVEOPT"):
    """Serve what greets as an NBD server does; gives its port."""

    async def greet(reader, writer):
        writer.write(words)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()
