import pytest

from minicloud.hypervisor.inside import Traffic, _traffic, look_inside
from minicloud.model.guest import GuestState
from testdriver import TestDriver


@pytest.fixture
async def node(tmp_path):
    driver = TestDriver(tmp_path, "a")
    yield driver
    await driver.close()


async def test_a_guest_is_told_in_one_call(node):
    inside = await node.call(look_inside(await node.uuid("a")))
    assert inside.power.state is GuestState.RUNNING
    assert [disk.target for disk in inside.devices.disks] == ["vda"]
    assert inside.autostart is False


async def test_a_guest_that_is_off_is_told_too(node):
    await node.act("a", "destroy")
    inside = await node.call(look_inside(await node.uuid("a")))
    assert inside.power.is_off
    assert [card.mac for card in inside.devices.cards] == ["52:54:00:00:00:00"]


def test_libvirts_numbered_records_become_traffic():
    stats = {
        "block.count": 3,
        "block.0.name": "vda", "block.0.rd.bytes": 10, "block.0.wr.bytes": 20,
        "block.0.rd.reqs": 1, "block.0.wr.reqs": 2,
        "block.1.name": "vdb", "block.1.allocation": 5,
        "block.2.name": "sda", "block.2.rd.bytes": 7,
    }  # fmt: skip
    assert _traffic(stats, "block", "bytes", "reqs", ("rd", "wr")) == {
        "vda": Traffic(10, 20, 1, 2), "sda": Traffic(7, 0, 0, 0),
    }  # fmt: skip
    assert _traffic({}, "net", "bytes", "pkts", ("rx", "tx")) == {}
