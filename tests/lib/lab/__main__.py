"""The lab from the command line: `python -m lab up 3`, `shell`, `off 2`, … , `down`.

Nodes are named by their numbers; `hub` runs a command where the nodes are reached at 10.99.0.I.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .lab import Lab, missing
from .node import DAEMONS, Node
from .process import LabError

_DEFAULT = Path("build/lab")
_PLAIN = {
    "off": Node.off, "on": Node.on, "cut": Node.cut, "heal": Node.heal,
    "blackhole": Node.blackhole, "rekey": Node.change_host_key,
}  # fmt: skip
_OF_A_PROCESS = {
    "hang": Node.hang, "unhang": Node.unhang, "stop": Node.stop, "start": Node.start,
}  # fmt: skip


def main(words: Sequence[str] | None = None) -> int:
    """Do what the words say; return the exit status."""
    given = _parser().parse_args(words)
    try:
        return _obey(given)
    except LabError as exc:
        print(f"lab: {exc}", file=sys.stderr)
        return 1


def _obey(given: argparse.Namespace) -> int:
    if problem := missing():
        raise LabError(problem)
    if given.command == "up":
        return _up(given)
    if given.command == "down" and not (given.folder / "lab.json").exists():
        return 0
    lab = Lab.load(given.folder)
    if given.command == "down":
        lab.down()
    elif given.command in ("shell", "hub"):
        words = getattr(given, "words", None) or [os.environ.get("SHELL", "/bin/sh")]
        return _replace_by(lab.hub.argv(words))
    elif given.command == "status":
        for node in lab.nodes.values():
            print(node.name, node.address, f"on {node.init.pid}" if node.is_on() else "off")
    else:
        return _do(lab, given)
    return 0


def _up(given: argparse.Namespace) -> int:
    started = time.monotonic()
    lab = Lab(given.folder, given.nodes, cache=given.cache, net=given.net, kept=True)
    try:
        lab.up()
    except BaseException:
        if lab.nodes:  # else it is another lab's folder
            lab.down()
        raise
    addresses = ", ".join(f"{node.name} {node.address}" for node in lab.nodes.values())
    print(f"{addresses}: up after {time.monotonic() - started:.2f} s")
    print(f"try: python -m lab hub {lab.ssh} root@{lab.nodes[1].address}")
    return 0


def _do(lab: Lab, given: argparse.Namespace) -> int:
    if given.node not in lab.nodes:
        raise LabError(f"there is no node {given.node}; there are 1 to {len(lab.nodes)}")
    node = lab.nodes[given.node]
    if given.command == "sh":
        return _replace_by(node.argv(given.words or ["/bin/sh"]))
    if given.command in _PLAIN:
        _PLAIN[given.command](node)
    elif given.command in _OF_A_PROCESS:
        _OF_A_PROCESS[given.command](node, given.process)
    elif given.command == "slow":
        node.slow(given.kbit)
    else:
        node.report_memory(total=given.total, free=given.free)
    return 0


def _replace_by(argv: Sequence[str]) -> int:
    os.execvp(argv[0], argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab", description="Nodes on one machine.")
    parser.add_argument("--folder", type=Path, default=_DEFAULT, help="default %(default)s")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="make a lab of N nodes")
    up.add_argument("nodes", type=int, nargs="?", default=3)
    up.add_argument("--net", default="10.99.0", help="first three octets, default %(default)s")
    up.add_argument("--cache", type=Path, help="where to keep what libvirt finds out about qemu")
    for name in ("down", "status", "shell"):
        commands.add_parser(name)
    hub = commands.add_parser("hub", help="run a command in the hub's network")
    hub.add_argument("words", nargs=argparse.REMAINDER)
    for name in (*_PLAIN, *_OF_A_PROCESS, "slow", "memory", "sh"):
        command = commands.add_parser(name)
        command.add_argument("node", type=int)
        if name in _OF_A_PROCESS:
            choices = [*DAEMONS, "qemu", "all"] if "hang" in name else [*DAEMONS]
            command.add_argument("process", choices=choices)
        if name == "slow":
            command.add_argument("kbit", type=int)
        if name == "memory":
            command.add_argument("total", type=int, help="MiB")
            command.add_argument("free", type=int, help="MiB")
        if name == "sh":
            command.add_argument("words", nargs=argparse.REMAINDER)
    return parser


if __name__ == "__main__":
    sys.exit(main())
