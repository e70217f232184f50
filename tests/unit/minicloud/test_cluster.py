"""Nodes in parallel: rows as they come, one connection each, and never later than the deadline."""

import asyncio
import contextlib
import time

import pytest

from minicloud.cluster import Cluster, Patience
from minicloud.errors import NodeError, Reason, StorageError, UsageError
from sshnodes import Faults, Home, black_hole, free_port, key, serving


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


def cluster_of(home, *nodes, **patience):
    return Cluster(home.inventory(*nodes), Patience(**patience), home.keys)


def named(home, *names):
    """Nodes that are not connected to."""
    return [home.node(1, name) for name in names]


async def greet(cluster, node):
    session = await cluster.session(node.name)
    return (await session.run(["echo", node.name])).stdout.decode().strip()


async def test_rows_come_as_they_are_done_and_gather_keeps_the_order(home):
    first, second = asyncio.Event(), asyncio.Event()
    cluster = cluster_of(home, *named(home, "a", "b"))

    async def work(node):
        await {"a": second, "b": first}[node.name].wait()
        return node.name

    first.set()
    seen = []
    async for row in cluster.each(work, cluster.nodes()):
        seen.append(row.value)
        second.set()
    assert seen == ["b", "a"]
    assert [row.value for row in await cluster.gather(work, cluster.nodes())] == ["a", "b"]


async def test_a_node_that_fails_is_a_row_and_hides_no_other(home):
    cluster = cluster_of(home, *named(home, "a", "b", "c"))

    async def work(node):
        if node.name == "a":
            raise NodeError(Reason.OFF, "off")
        if node.name == "b":
            raise ZeroDivisionError
        return 1

    rows = await cluster.gather(work, cluster.nodes())
    assert [(row.value, row.error and row.error.reason) for row in rows] == [
        (None, Reason.OFF), (None, Reason.COMMAND), (1, None),
    ]  # fmt: skip


@pytest.mark.parametrize("error", [UsageError("no"), StorageError("busy", "no")])
async def test_what_is_no_nodes_fault_ends_all(home, error):
    cluster = cluster_of(home, *named(home, "a", "b"))
    ended = []

    async def work(node):
        if node.name == "a":
            raise error
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(node.name)

    with pytest.raises(type(error)):
        await cluster.gather(work, cluster.nodes())
    assert ended == ["b"]


async def test_a_node_that_is_not_done_in_time_is_a_row(home):
    cluster = cluster_of(home, *named(home, "a", "b"), whole=0.05)

    async def work(node):
        if node.name == "a":
            await asyncio.Event().wait()
        return 1

    rows = await cluster.gather(work, cluster.nodes())
    assert rows[0].error.reason is Reason.DEADLINE
    assert rows[1].value == 1


async def test_a_node_that_refuses_to_be_cancelled_keeps_nobody(home):
    cluster = cluster_of(home, *named(home, "a"), whole=0.05)
    leave = asyncio.Event()

    async def work(node):
        while not leave.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await leave.wait()

    [row] = await cluster.gather(work, cluster.nodes())
    leave.set()
    assert row.error.reason is Reason.DEADLINE


async def test_a_step_ends_with_the_whole_and_says_better_why(home):
    with black_hole() as port:
        async with cluster_of(home, home.node(port), whole=0.2, login=60) as cluster:
            [row] = await cluster.gather(lambda node: greet(cluster, node), cluster.nodes())
    assert row.error.reason is Reason.NO_SSH


async def test_a_node_is_connected_once_a_run(home):
    faults = Faults()
    async with serving(faults) as port, cluster_of(home, home.node(port)) as cluster:
        for _ in range(2):
            await asyncio.gather(*(cluster.session("ham1") for _ in range(5)))
        assert faults.logins == 1
        assert await cluster.hypervisor("ham1") is await cluster.hypervisor("ham1")


async def test_a_failure_is_kept_until_it_is_forgotten(home):
    port = free_port()
    async with cluster_of(home, home.node(port)) as cluster:
        with pytest.raises(NodeError):
            await cluster.session("ham1")
        async with serving(port=port):
            with pytest.raises(NodeError):
                await cluster.session("ham1")
            await cluster.forget("ham1")
            assert await greet(cluster, cluster.node("ham1")) == "ham1"


async def test_a_lost_connection_is_told_and_after_forgetting_it_made_anew(home):
    faults = Faults()
    async with serving(faults) as port, cluster_of(home, home.node(port)) as cluster:
        session = await cluster.session("ham1")
        session.cut()
        with pytest.raises(NodeError) as caught:
            await cluster.session("ham1")
        assert caught.value.reason is Reason.SSH_LOST
        await cluster.forget("ham1")
        assert await greet(cluster, cluster.node("ham1")) == "ham1"


async def test_one_who_leaves_does_not_take_the_connection_from_those_who_wait(home):
    async with serving() as port, cluster_of(home, home.node(port)) as cluster:
        leaving = asyncio.create_task(cluster.session("ham1"))
        staying = asyncio.create_task(cluster.session("ham1"))
        await asyncio.sleep(0)
        leaving.cancel()
        assert (await staying).node.name == "ham1"
        assert leaving.cancelled()


async def test_a_new_host_key_is_told_once(home):
    async with serving() as port:
        for note in (f"new host key {key('host').get_fingerprint()}", ""):
            async with cluster_of(home, home.node(port)) as cluster:
                [row] = await cluster.gather(lambda node: greet(cluster, node), cluster.nodes())
                assert row.note == note


def test_an_unknown_node_is_the_operators_error(home):
    cluster = cluster_of(home, *named(home, "ham1"))
    with pytest.raises(UsageError, match=r"no node 'ham2'; did you mean 'ham1'\?"):
        cluster.nodes(["ham2"])


async def test_a_hundred_nodes_ten_of_them_dead(home):
    """What the deadline is about: the ninety answer, the ten are rows, and nobody waits longer."""
    count, whole = 100, 20.0
    async with contextlib.AsyncExitStack() as stack:
        ports = [await stack.enter_async_context(serving()) for _ in range(count - 10)]
        for port in ports:
            home.trust(port)
        silent = [stack.enter_context(black_hole()) for _ in range(10)]
        nodes = [home.node(port, f"ham{n}") for n, port in enumerate([*ports, *silent])]
        cluster = await stack.enter_async_context(cluster_of(home, *nodes, whole=whole, login=5))
        begun = time.monotonic()
        rows = await cluster.gather(lambda node: greet(cluster, node), nodes)
        took = time.monotonic() - begun
    assert [row.value for row in rows[:90]] == [f"ham{n}" for n in range(90)]
    assert {row.error.reason for row in rows[90:]} == {Reason.NO_SSH}
    assert took <= whole + 1
