"""The test driver knows an address by every source; a real agent and ARP are in tests/interop."""

import pytest

from minicloud.errors import NodeError
from minicloud.hypervisor.sightings import sight
from minicloud.model.address import AddressSource
from testdriver import TestDriver


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
