"""The lab: a hub and its nodes, made together and taken down together."""

import json
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self

from .files import NodeFiles, make_key
from .network import Hub
from .node import Node
from .process import LabError, Lifeline, Process
from .waking import waking

__all__ = ["Lab", "has_kvm", "missing"]

_PROGRAMS = {
    "unshare": "util-linux", "nsenter": "util-linux", "ip": "iproute2", "tc": "iproute2",
    "ssh-keygen": "openssh-client", "sshd": "openssh-server", "libvirtd": "libvirt-daemon",
    "virtlogd": "libvirt-daemon", "virsh": "libvirt-clients",
    "qemu-system-x86_64": "qemu-system-x86",
}  # fmt: skip
_SSH = """#!/bin/sh
exec ssh -F none -i '{key}' -o UserKnownHostsFile='{known_hosts}' -o GlobalKnownHostsFile=none \
    -o IdentitiesOnly=yes -o IdentityAgent=none -o BatchMode=yes -o ServerAliveInterval=5 "$@"
"""
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


class Lab:
    """A hub and N nodes; as a context manager it is up for the block.

    Args:
        folder: is made, and removed with all that is in it by `down`.
        nodes: how many.
        cache: folder that libvirt's findings about qemu are kept in from lab to lab; saves a second
            at the first boot of each node. None is one in `folder`.
        net: first three octets of the lab's addresses. Labs do not meet, so they may all be equal.
        kept: whether the lab stays when this process ends (see `load`).

    Attributes:
        nodes: by number, from 1 on.
        hub: where the asking side lives; `with lab.hub.entered():` takes this thread there.
        key: private key that root is let in with on all nodes.
        known_hosts: the nodes' host keys, as they were at first.
        ssh: a program: ssh with that key and those host keys, and nothing of the user's own.
        virt_type: what their guests can be: `kvm` where a real one is there, else `qemu`.
    """

    def __init__(
        self, folder: Path, nodes: int = 3, *, cache: Path | None = None, net: str = "10.99.0",
        kept: bool = False,
    ) -> None:  # fmt: skip
        self.folder = folder.resolve()
        self.key = self.folder / "id_ed25519"
        self.known_hosts = self.folder / "known_hosts"
        self.ssh = self.folder / "ssh"
        self.virt_type = "kvm" if has_kvm() else "qemu"
        self.nodes: Mapping[int, Node] = {}
        self.hub: Hub
        self._count = nodes
        self._cache = cache.resolve() if cache else self.folder / "capabilities"
        self._net = net
        self._kept = kept
        self._lifeline = Lifeline(kept=kept)

    def __enter__(self) -> Self:
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    @classmethod
    def load(cls, folder: Path) -> "Lab":
        """Take hold of a lab that another process made with `kept`."""
        state_file = folder.resolve() / "lab.json"
        if not state_file.exists():
            raise LabError(f"there is no lab in {folder}; make one: python -m lab up")
        state = json.loads(state_file.read_text())
        lab = cls(folder, state["nodes"], cache=Path(state["cache"]), net=state["net"], kept=True)
        lab.hub = Hub(Process(*state["hub"]), state["net"])
        lab._number_nodes()
        return lab

    def up(self) -> None:
        """Make the hub and the nodes, and wait until all of them answer."""
        if (self.folder / "lab.json").exists():
            raise LabError(f"there is a lab in {self.folder}; python -m lab down takes it away")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._cache.mkdir(parents=True, exist_ok=True)
        make_key(self.key, "lab")
        self.ssh.write_text(_SSH.format(key=self.key, known_hosts=self.known_hosts))
        self.ssh.chmod(0o755)
        self.hub = Hub.create(self._lifeline, self._net)
        self._save()
        self._number_nodes()
        hosts = "".join(
            f"{address} {name}\n"
            for address, name in [
                ("127.0.0.1", "localhost"), (self.hub.address, "hub"),
                *((node.address, node.name) for node in self.nodes.values()),
            ]
        )  # fmt: skip
        self._on_each(lambda node: self._make(node, hosts))
        self.known_hosts.write_text(
            "".join(
                f"{node.address},{node.name} {node.files.public_host_key()}\n"
                for node in self.nodes.values()
            )
        )

    def down(self) -> None:
        """End what is left of it and remove its folder; any number of times, even half made."""
        for node in self.nodes.values():
            if init := Process.written(node.files.state):
                init.end()
        if hasattr(self, "hub"):
            self.hub.process.end()
        self.nodes = {}
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lifeline.cut()

    def uri(self, node: Node) -> str:
        """Return what `virsh -c` takes, in the hub's network, for a node's libvirtd."""
        return f"qemu+ssh://root@{node.address}/system?command={self.ssh}"

    def waking(self) -> AbstractContextManager[list[str]]:
        """Have nodes that are off listen for magic packets, for the time of a block."""
        return waking(self.hub, self.nodes)

    def restore(self) -> None:
        """Mend whatever was broken on any node, and take all guests away."""
        self._on_each(Node.restore)

    def _save(self) -> None:
        """Write down what `load` needs."""
        state = {
            "net": self._net,
            "cache": str(self._cache),
            "hub": [self.hub.process.pid, self.hub.process.started],
            "nodes": self._count,
        }
        (self.folder / "lab.json").write_text(json.dumps(state))

    def _number_nodes(self) -> None:
        self.nodes = {
            number: Node(
                number, hub=self.hub, lifeline=self._lifeline, capabilities=self._cache,
                files=NodeFiles(self.folder / f"n{number}"), has_kvm=self.virt_type == "kvm",
            )
            for number in range(1, self._count + 1)
        }  # fmt: skip

    def _make(self, node: Node, hosts: str) -> None:
        node.files.create(
            name=node.name, address=node.address, hosts=hosts,
            public_key=self.key.with_suffix(".pub"),
        )  # fmt: skip
        node.on()

    def _on_each(self, work) -> None:
        with ThreadPoolExecutor(max(len(self.nodes), 1)) as pool:
            list(pool.map(work, self.nodes.values()))


def missing() -> str | None:
    """Say what keeps a lab from being made here, with the remedy; None if nothing does."""
    if os.geteuid() != 0:
        return "a lab of nodes needs root; run this as root"
    if not Path("/dev/net/tun").exists():
        return "a lab of nodes needs /dev/net/tun; modprobe tun, or give the container the device"
    packages = {
        package for name, package in _PROGRAMS.items() if not shutil.which(name, path=_PATH)
    }
    if packages:
        return f"a lab of nodes needs more; apt-get install {' '.join(sorted(packages))}"
    return None


def has_kvm() -> bool:
    """Whether a guest would boot under kvm; /dev/kvm alone proves nothing (kvm_pvm never boots)."""
    modules = [Path(f"/sys/module/kvm_{vendor}") for vendor in ("intel", "amd")]
    return Path("/dev/kvm").exists() and any(module.is_dir() for module in modules)
