"""Guests on exclusive exports, with a record of their definition, as `minicloud boot` makes them.

Made by the same parts (`domain_xml`, `guest_export`, `record_export`), put on a node by virsh.
"""

import asyncio
import re
import subprocess
from dataclasses import replace
from uuid import NAMESPACE_DNS, uuid5

from guestplans import TEMPLATE, make_origin
from minicloud.domain.plan import GuestOptions, TcpServer, plan_guest
from minicloud.domain.xml import domain_xml
from minicloud.model.guest import GuestKind
from minicloud.model.inventory import NbdService, VirtType
from minicloud.moving.record import Record, record_export
from minicloud.seed import Seed, seed_image
from minicloud.storage.service import Storage
from minicloud.storage.tables import guest_export, seed_export
from minicloud_command import minicloud
from waiting import eventually

__all__ = ["Guests", "succeed"]


def succeed(*words):
    """Run `minicloud`, which is to do all it was asked for; returns its answer."""
    answer = minicloud(*words, timeout=120)
    assert answer.status == 0, answer.out + answer.err
    return answer


class Guests:
    """The guests of a test.

    Args:
        lab: with the nodes.
        export_server: of their disks.
        image: URL or path of the image beneath their overlays.
        layers: over it.
        memory: bytes each has.
    """

    def __init__(self, lab, export_server, image, *, layers=("xz",), memory=128 << 20):
        self.lab = lab
        self._nbd = NbdService(
            address=export_server.address, port=export_server.port,
            control=str(export_server.control), overlays=str(export_server.overlays),
        )  # fmt: skip
        self.storage = Storage(self._nbd)
        self._template = replace(
            TEMPLATE, image=(image,), layers=layers, memory=memory, vcpus=1,
            network="bridge:vmbr0", size=None,
        )  # fmt: skip

    async def boot(self, node, name, words="guest.stay", *, kind=GuestKind.CATTLE, is_off=False):
        """Make a guest and start it on a node; a pet may stay off."""
        server = TcpServer(self._nbd.address, self._nbd.port)
        plan = plan_guest(
            self._template, GuestOptions(kind=kind), name=name,
            uuid=str(uuid5(NAMESPACE_DNS, name)), origin=make_origin(name, kind=kind, seed=True),
            server=server, virt_type=VirtType(self.lab.virt_type),
        )  # fmt: skip
        xml = domain_xml(plan)
        await self.storage.add(guest_export(self._template, name, self._nbd))
        seed = Seed(
            instance_id=name, hostname=name, user_data=f"#cloud-config\n# {words}\n".encode()
        )
        await self.storage.add(seed_export(name, seed_image(seed)))
        await self.storage.add(record_export(name, Record(node.name, xml)))
        if kind is GuestKind.CATTLE:
            self.virsh(node, "create", "/dev/stdin", given=xml)
            return
        self.virsh(node, "define", "/dev/stdin", given=xml)
        self.virsh(node, "autostart", name)
        if not is_off:
            self.virsh(node, "start", name)

    def virsh(self, node, *words, given=""):
        done = subprocess.run(
            ["virsh", "-q", "-c", self.lab.uri(node), *words], input=given, capture_output=True,
            text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def console(self, node, name):
        """What the guest has said on a node."""
        log = node.files.log / "qemu" / f"{name}-console.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def says(self, node, name, pattern):
        """Wait until the guest has said what matches on a node."""
        eventually(lambda: re.search(pattern, self.console(node, name), re.MULTILINE), within=120)

    def passes(self, name):
        """Numbers of the passes that were verified, on whichever node, in the order of nodes."""
        texts = [self.console(node, name) for node in self.lab.nodes.values()]
        assert "GUEST-FAIL" not in "".join(texts)
        assert "I/O error" not in "".join(texts)
        return [int(number) for text in texts for number in re.findall("GUEST-OK ([0-9]+)", text)]

    def where(self, name):
        """The node a guest is on, running or defined."""
        found = [node.name for node in self.lab.nodes.values()
                 if node.is_on() and name in node.domains()]  # fmt: skip
        assert len(found) == 1, found
        return found[0]

    async def until_alone(self, name):
        """Wait until a guest's disk has one client: the node it has left has let go of it."""
        for _ in range(1000):
            if await self.clients(name) == 1:
                return
            await asyncio.sleep(0.01)  # the pace of the question
        raise AssertionError(f"the disk of {name} has {await self.clients(name)} clients")

    async def clients(self, name):
        """How many clients a guest's disk has."""
        return {one.name: one.connections for one in await self.storage.exports()}[f"guest/{name}"]
