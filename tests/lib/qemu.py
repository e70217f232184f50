"""A real qemu that is steered over QMP: disks on NBD, written to by its own block layer."""

import contextlib
import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

__all__ = ["Qemu", "nbd_disk", "qemu"]


_DISK = "/machine/peripheral/guest/virtio-backend"


class Qemu:
    """A running qemu-system-x86_64.

    Attributes:
        process: it.
        events: what it told unasked, by name, since the start.
    """

    def __init__(
        self, process: subprocess.Popen[str], sock: socket.socket, lines: TextIO, out: TextIO
    ) -> None:
        self.process = process
        self.events: list[str] = []
        self._sock = sock
        self._lines = lines
        self._out = out
        self._lines.readline()  # its greeting
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments) -> object:
        """Carry out a QMP command and return its result; RuntimeError with what went wrong."""
        line = json.dumps({"execute": command, "arguments": arguments}) + "\n"
        self._sock.sendall(line.encode())
        while True:
            line = self._lines.readline()
            if not line:
                raise ConnectionResetError("qemu has gone")
            answer = json.loads(line)
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise RuntimeError(answer["error"]["desc"])
            self.events.append(answer["event"])

    def io(self, command: str) -> str:
        """Carry out a qemu-io command on the disk `disk`; return what it printed."""
        line = f'qemu-io -d {_DISK} "{command}"'
        self.ask("human-monitor-command", **{"command-line": line})
        return self._out.read().strip()  # a line at a time, as stdbuf has it

    def migrate_to(self, path: Path) -> None:
        """Begin to migrate to a qemu that waits at a Unix socket."""
        self.ask("migrate", uri=f"unix:{path}")

    @property
    def migration(self) -> str:
        """How the migration stands."""
        told = self.ask("query-migrate")
        assert isinstance(told, dict)
        return str(told.get("status", "none"))


def nbd_disk(host: str, port: int, export: str, *, reconnect: int = 0) -> str:
    """Describe an NBD disk for -blockdev."""
    server = {"type": "inet", "host": host, "port": str(port)}
    nbd = {"driver": "nbd", "server": server, "export": export, "reconnect-delay": reconnect}
    return json.dumps({"driver": "raw", "node-name": "disk", "file": nbd})


@contextlib.contextmanager
def qemu(folder: Path, name: str, disk: str, *words: str) -> Iterator[Qemu]:
    """Run qemu with a disk until the block ends; RuntimeError if it does not start.

    Args:
        folder: where its monitor's socket goes.
        name: of this one.
        disk: as `nbd_disk` describes it.
        words: further words of the command line.
    """
    monitor = folder / f"{name}.qmp"
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(str(monitor))
        listening.listen()
        listening.settimeout(60)
        path = folder / f"{name}.out"
        written = stack.enter_context(path.open("w"))
        process = subprocess.Popen(
            ["stdbuf", "-oL", "qemu-system-x86_64", "-accel", "tcg", "-m", "64", "-display", "none",
             "-nodefaults", "-blockdev", disk, "-device", "virtio-blk-pci,drive=disk,id=guest",
             "-qmp", f"unix:{monitor}", *words],
            stdin=subprocess.DEVNULL, stdout=written, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        stack.callback(process.communicate, timeout=60)
        stack.callback(process.kill)
        sock = stack.enter_context(listening.accept()[0])  # it opens its disks after this
        lines = stack.enter_context(sock.makefile("r"))
        out = stack.enter_context(path.open())
        try:
            steered = Qemu(process, sock, lines, out)
        except OSError:
            process.kill()
            raise RuntimeError(f"qemu did not start: {process.communicate()[1]}") from None
        yield steered
