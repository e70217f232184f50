"""Nodes as the doctor finds them: whole ones, of which a test breaks a part."""

import dataclasses

from minicloud.doctor.exam import Clock, Exam
from minicloud.doctor.survey import KvmDevice, Survey
from minicloud.hypervisor.abilities import Abilities
from minicloud.model.guest import NodeFacts
from minicloud.model.inventory import Inventory, NbdService, Node
from minicloud.moving.probe import Probe, Reach
from minicloud.ssh.access import Access

__all__ = ["ACCESS", "FACTS", "NBD", "SURVEY", "abilities", "by_name", "exam_of", "inventory_of"]

NBD = NbdService(address="nbd.lan", control="/c.sock", overlays="/overlays")
ACCESS = Access(
    address="10.0.0.1", port=22, software="OpenSSH_9.2p1", host_key="ssh-ed25519 SHA256:abc",
    known_at="/known:3", user="root", key="ssh-ed25519 key of the agent (ruth)",
)  # fmt: skip
SURVEY = Survey(
    seconds=1000.5, arch="x86_64", modules={"kvm_amd"}, kvm=KvmDevice(0o660, "root", "kvm")
)
FACTS = NodeFacts(
    hostname="ham1", cpus=8, memory=16 << 30, memory_available=None, libvirt=(10, 0, 0),
    qemu=(8, 2, 0), guests=(),
)  # fmt: skip


def abilities(networks=("default",), *, reconnects=True, **facts):
    return Abilities(dataclasses.replace(FACTS, **facts), frozenset(networks), reconnects)


def exam_of(node=None, **found):
    """Make an exam of a node without a fault."""
    whole = {
        "access": ACCESS,
        "survey": SURVEY,
        "clock": Clock(1000.0, 1001.0),
        "opened": "/run/libvirt/libvirt-sock",
        "abilities": abilities(),
        "boots": True,
        "probe": Probe(addresses={("nbd.lan", 10809): Reach.OPEN}),
    }
    return Exam(node or Node(name="ham1", host="ham1.lan"), **(whole | found))


def inventory_of(*names, **more):
    nodes = {name: Node(name=name, host=f"{name}.lan") for name in names or ("ham1",)}
    return Inventory(file=None, nodes=nodes, **({"nbd": NBD} | more))


def by_name(checks):
    """Give the checks by their names, none of which may come twice."""
    found = {check.name: check for check in checks}
    assert len(found) == len(checks)
    return found
