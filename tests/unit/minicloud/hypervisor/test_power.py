"""On libvirt's test driver, whose guests stop at once; those that do not are in tests/interop."""

import asyncio

import pytest

from minicloud.errors import NodeError
from minicloud.hypervisor import power
from minicloud.model.guest import GuestState
from testdriver import TestDriver

TRANSIENT = """<domain type='test'><name>t</name><memory>9999</memory>
  <os><type>hvm</type></os></domain>"""


@pytest.fixture
async def node(tmp_path):
    driver = TestDriver(tmp_path, "a")
    yield driver
    await driver.close()


async def state(node, uuid):
    return (await node.call(power.look(uuid))).state


async def transient(node):
    return await node.call(lambda connection: connection.createXML(TRANSIENT).UUIDString())


async def test_a_running_guest_is_told_as_such(node):
    seen = await node.call(power.look(await node.uuid("a")))
    assert (seen.state, seen.is_off, seen.is_there) == (GuestState.RUNNING, False, True)
    assert seen.faults == {}


async def test_a_guest_that_is_gone_is_off(node):
    uuid = await transient(node)
    await node.act("t", "destroy")
    seen = await node.call(power.look(uuid))
    assert (seen.is_off, seen.is_there) == (True, False)


async def test_a_paused_guest_names_the_disk_that_failed(node):
    await node.act("a", "suspend")
    seen = await node.call(power.look(await node.uuid("a")))
    assert seen.state is GuestState.PAUSED
    assert seen.faults == {"vda": "I/O error"}  # the test driver says so of every disk


async def test_a_guest_that_stops_when_asked_is_not_forced(node):
    stopped = await power.stop(node, await node.uuid("a"), grace=60)
    assert not stopped.was_forced
    assert stopped.is_there


async def test_a_transient_guest_that_stops_is_gone(node):
    stopped = await power.stop(node, await transient(node), grace=60)
    assert not stopped.was_forced
    assert not stopped.is_there


async def test_without_grace_a_guest_is_forced(node):
    uuid = await node.uuid("a")
    assert (await power.stop(node, uuid, grace=0)).was_forced
    assert await state(node, uuid) is GuestState.SHUTOFF


async def test_a_guest_that_went_off_by_itself_need_not_be_forced(node):
    uuid = await node.uuid("a")
    await node.act("a", "destroy")
    assert (await power.stop(node, uuid, grace=0)).is_there
    assert not (await power.stop(node, uuid, grace=60)).was_forced


async def test_a_guest_that_does_not_reboot_is_reset(node):
    # the test driver reboots without saying so
    rebooted = await power.reboot(node, await node.uuid("a"), grace=0.01)
    assert rebooted.was_forced
    assert not rebooted.is_off


async def test_a_guest_that_stops_instead_of_rebooting_is_told(node):
    uuid = await node.uuid("a")
    rebooting = asyncio.create_task(power.reboot(node, uuid, grace=60))
    await node.called(3)  # ours, its watch, its question
    await node.act("a", "destroy")
    assert (await rebooting).is_off


async def test_a_resumed_guest_runs(node):
    await node.act("a", "suspend")
    resumed = await power.resume(node, await node.uuid("a"), proof=0.01, patience=0)
    assert resumed.power.state is GuestState.RUNNING


async def pausing_again(node, times, *, patience):
    """Resume a guest that pauses again so many times."""
    uuid = await node.uuid("a")
    await node.act("a", "suspend")
    resuming = asyncio.create_task(
        power.resume(node, uuid, proof=3600, patience=patience, again=0.0)
    )
    calls = 3  # both of ours, its watch
    for _ in range(times):
        await node.called(calls + 1)  # its waking
        await node.act("a", "suspend")
        calls += 3  # that, ours, its look
    return resuming


async def test_a_guest_that_pauses_again_is_told_when_patience_is_over(node):
    resuming = await pausing_again(node, 1, patience=-1)
    assert (await resuming).power.state is GuestState.PAUSED


async def test_a_guest_that_pauses_again_is_resumed_again(node):
    resuming = await pausing_again(node, 2, patience=3600)
    await node.called(10)  # its third waking
    assert not resuming.done()
    await node.act("a", "destroy")  # ends the waiting
    assert (await resuming).power.is_off


async def test_a_guest_that_is_off_starts(node):
    uuid = await node.uuid("a")
    await node.act("a", "destroy")
    await power.start(node, uuid)
    assert await state(node, uuid) is GuestState.RUNNING


async def test_starting_a_running_guest_is_an_error(node):
    with pytest.raises(NodeError):
        await power.start(node, await node.uuid("a"))


async def test_a_guest_that_is_going_off_is_waited_for(node):
    uuid = await node.uuid("a")
    waiting = asyncio.create_task(power.until_off(node, uuid, 3600))
    await node.called(3)  # ours, its look, its watch
    await node.act("a", "destroy")
    assert (await waiting).is_off


async def test_a_guest_that_goes_on_is_not_waited_for_longer(node):
    assert not (await power.until_off(node, await node.uuid("a"), 0.01)).is_off
