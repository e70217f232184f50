import pytest

from minicloud.errors import NodeError
from minicloud.hypervisor.events import Happening, Watch
from testdriver import TestDriver


@pytest.fixture
async def node(tmp_path):
    driver = TestDriver(tmp_path, "a", "b")
    yield driver
    await driver.close()


async def test_what_a_guest_does_is_told_in_order(node):
    async with Watch(node, await node.uuid("a")) as watch:
        for verb in ("suspend", "resume", "destroy", "create"):
            await node.act("a", verb)
        seen = [await watch.next(10) for _ in range(4)]
    assert seen == [
        Happening.PAUSED, Happening.RESUMED, Happening.STOPPED, Happening.STARTED,
    ]  # fmt: skip


async def test_another_guest_is_not_told_of(node):
    async with Watch(node, await node.uuid("a")) as watch:
        await node.act("b", "suspend")
        await node.act("a", "destroy")
        assert await watch.next(10) is Happening.STOPPED


async def test_nothing_happens_in_no_time(node):
    async with Watch(node, await node.uuid("a")) as watch:
        assert await watch.next(0.0) is None


async def test_nothing_is_told_after_the_watch_has_ended(node):
    async with Watch(node, await node.uuid("a")) as watch:
        pass
    async with Watch(node, await node.uuid("a")) as later:
        await node.act("a", "destroy")
        assert await later.next(10) is Happening.STOPPED
    assert await watch.next(0.0) is None


async def test_a_guest_that_is_gone_cannot_be_watched(node):
    with pytest.raises(NodeError, match="Domain not found"):
        async with Watch(node, "00000000-0000-0000-0000-000000000001"):
            pass
