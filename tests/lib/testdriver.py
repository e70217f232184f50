"""libvirt's test driver, called as a node's libvirt is: on its own threads, plain values out.

Every driver has its own node: domains of one test are not seen by another.
"""

import asyncio
import functools
from pathlib import Path

import libvirt

from minicloud.daemons import Daemons
from minicloud.hypervisor.binding import libvirt_module, told
from minicloud.hypervisor.events import start_events

__all__ = ["TestDriver"]

_NETWORK = """<network><name>default</name><bridge name='virbr0'/><forward/>
  <ip address='192.168.122.1' netmask='255.255.255.0'>
  <dhcp><range start='192.168.122.128' end='192.168.122.253'/></dhcp></ip></network>"""

_DOMAIN = """<domain type='test'><name>{name}</name><memory unit='MiB'>64</memory>
  <os><type>hvm</type></os><devices>
  <disk type='file'><source file='/{name}.img'/><target dev='vda' bus='virtio'/></disk>
  <interface type='network'><source network='default'/><mac address='52:54:00:00:00:{mac:02x}'/>
  </interface></devices></domain>"""


class TestDriver:
    """Stands where a Hypervisor stands.

    Args:
        folder: for the description of its node.
        names: of guests that are defined and running.
    """

    __test__ = False  # it is no test

    def __init__(self, folder: Path, *names: str) -> None:
        libvirt_module()  # silences libvirt's printing
        start_events()
        node = folder / "node.xml"
        domains = "".join(_DOMAIN.format(name=name, mac=at) for at, name in enumerate(names))
        node.write_text(f"<node>{_NETWORK}{domains}</node>")
        self._threads = Daemons("testdriver", 2)
        self._uri = f"test://{node}"
        self._connection = None
        self._calls = 0
        self._called = asyncio.Condition()

    async def call(self, work, *, deadline=10):
        try:
            return await self._threads.submit(functools.partial(self._do, work))
        finally:
            self._calls += 1
            async with self._called:
                self._called.notify_all()

    async def called(self, count):
        """Wait until so many calls have been made in all."""
        async with self._called:
            await self._called.wait_for(lambda: self._calls >= count)

    async def uuid(self, name):
        return await self.call(lambda connection: connection.lookupByName(name).UUIDString())

    async def act(self, name, verb):
        """Do something to a guest behind everybody's back."""
        await self.call(lambda connection: _acted(connection, name, verb))

    async def close(self):
        await self.call(lambda _: self._end())
        self._threads.end()

    def _do(self, work):
        if self._connection is None:
            self._connection = libvirt.open(self._uri)
        try:
            return work(self._connection)
        except libvirt.libvirtError as exc:
            raise told(exc) from exc

    def _end(self):
        self._connection.close()
        self._connection = None


def _acted(connection, name, verb):
    getattr(connection.lookupByName(name), verb)()
