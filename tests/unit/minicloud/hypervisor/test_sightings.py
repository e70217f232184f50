"""The test driver knows an address by every source; a real agent and ARP are in tests/interop."""

import pytest

from minicloud.errors import NodeError
from minicloud.hypervisor.sightings import best_addresses, sight
from minicloud.model.address import AddressSource
from minicloud.ssh.session import Completed
from testdriver import TestDriver


class _NoShell:
    """A node that runs no commands for us."""

    async def run(self, argv):
        return Completed(1, b"", b"")


NO_SHELL = _NoShell()


@pytest.fixture
async def node(tmp_path):
    driver = TestDriver(tmp_path, "a")
    yield driver
    await driver.close()


async def test_all_sources_that_are_there_are_asked(node):
    found = await node.call(sight(await node.uuid("a")))
    assert set(found.seen) == {AddressSource.LEASE, AddressSource.ARP}
    assert found.silent == {AddressSource.AGENT: "no guest agent is connected"}
    [address] = found.addresses
    assert address.sources == (AddressSource.LEASE, AddressSource.ARP)
    assert address.mac == "52:54:00:00:00:00"


async def test_one_address_may_be_enough(node):
    found = await node.call(sight(await node.uuid("a"), only_first=True))
    assert set(found.seen) == {AddressSource.LEASE}
    assert found.silent == {}


async def test_a_guest_that_is_off_is_seen_by_none(node):
    await node.act("a", "destroy")
    found = await node.call(sight(await node.uuid("a")))
    assert found.addresses == ()
    assert "not running" in found.silent[AddressSource.LEASE]


async def test_a_guest_that_is_gone_is_an_error(node):
    with pytest.raises(NodeError, match="Domain not found"):
        await node.call(sight("00000000-0000-0000-0000-000000000001"))


async def test_each_guest_of_a_node_has_its_best_address(tmp_path):
    node = TestDriver(tmp_path, "a", "b", "off")
    await node.act("off", "destroy")
    uuids = [await node.uuid(name) for name in ("a", "b", "off")]
    gone = "00000000-0000-0000-0000-000000000001"
    found = await best_addresses(node, NO_SHELL, [*uuids, gone])
    assert [found[uuid].mac for uuid in uuids[:2]] == ["52:54:00:00:00:00", "52:54:00:00:00:01"]
    assert set(found) == set(uuids[:2])
    assert found[uuids[0]].sources == (AddressSource.LEASE,)
    await node.close()
