"""Storage against a running nbdserve, and against what is none."""

import asyncio
import subprocess

import pytest

from chains import pattern
from daemon import daemon
from guestplans import TEMPLATE
from minicloud.errors import NodeError, Reason, StorageError
from minicloud.model.inventory import NbdService, Node
from minicloud.seed import Seed, seed_image
from minicloud.storage.service import Storage
from minicloud.storage.tables import seed_export

DISK = {"name": "disk", "description": "a disk", "source": {"type": "null", "size": "1M"}}


def service(path, **fields):
    return NbdService(address="localhost", control=str(path), **fields)


@pytest.fixture
def server(tmp_path):
    options = ["--control", tmp_path / "c.sock", "--state-dir", tmp_path / "state"]
    with daemon(options=options) as running:
        running.control = tmp_path / "c.sock"
        yield running


@pytest.fixture
def storage(server):
    return Storage(service(server.control))


async def kind_of(doing):
    with pytest.raises(StorageError) as caught:
        await doing
    return caught.value.kind, str(caught.value)


async def test_exports_come_and_go(storage):
    assert await storage.exports() == []
    await storage.add(DISK)
    (export,) = await storage.exports()
    assert (export.name, export.description, export.size) == ("disk", "a disk", 1 << 20)
    assert (export.is_added, export.connections, export.error) == (True, 0, None)
    await storage.remove("disk")
    assert await storage.exports() == []


async def test_a_seed_is_served_as_it_was_made(storage, server):
    image = seed_image(Seed(instance_id="1", hostname="web1", user_data=b"#!/bin/sh\n"))
    await storage.add(seed_export("web1", image))
    copied = subprocess.run(
        ["nbdcopy", server.uri("seed/web1"), "-"], capture_output=True, check=True
    ).stdout
    assert copied == image


async def test_what_nbdserve_refuses_keeps_its_kind_and_words(storage, tmp_path):
    await storage.add(DISK)
    assert await kind_of(storage.add(DISK)) == ("exists", "there is an export 'disk' already")
    missing = {"name": "x", "source": {"type": "file", "path": str(tmp_path / "none")}}
    kind, text = await kind_of(storage.add(missing))
    assert (kind, "No such file" in text) == ("device", True)
    assert (await kind_of(storage.remove("web1")))[0] == "unknown-export"
    assert (await kind_of(storage.add({"name": "y"})))[0] == "argument"
    assert len(await storage.exports()) == 1


async def test_many_requests_go_at_once(storage):
    tables = [{**DISK, "name": f"d{number}"} for number in range(12)]
    await asyncio.gather(*map(storage.add, tables))
    assert {export.name for export in await storage.exports()} == {t["name"] for t in tables}


async def test_status_is_all_of_it(storage, server):
    assert (await storage.status())["pid"] == server.process.pid


async def test_warming_tells_how_far_it_is(storage, tmp_path):
    (tmp_path / "disk.img").write_bytes(pattern(1 << 20))
    await storage.add({"name": "d", "source": {"type": "file", "path": str(tmp_path / "disk.img")}})
    told = []
    await storage.warm("d", length=4096, on_progress=told.append)
    assert all(facts["length"] == 4096 for facts in told)


async def test_no_nbdserve_is_one_line_with_the_remedy(tmp_path):
    path = tmp_path / "none.sock"
    assert await kind_of(Storage(service(path)).exports()) == (
        "unreachable",
        (
            f"no nbdserve has its control socket at {path} on this machine; start nbdserve with "
            f"--control {path}, or name its socket as control in [nbd]"
        ),
    )


async def test_an_nbdserve_that_was_killed_is_told_the_same_way(server, storage):
    server.kill()
    kind, text = await kind_of(storage.exports())
    assert (kind, "start nbdserve with --control" in text) == ("unreachable", True)


async def test_the_socket_for_nbd_clients_is_told_apart(server):
    kind, text = await kind_of(Storage(service(server.socket)).exports())
    assert (kind, "is no control socket of nbdserve" in text) == ("unreachable", True)


async def test_without_an_nbd_table_nothing_is_dialled():
    kind, text = await kind_of(Storage(None).exports())
    assert (kind, "has no [nbd] table" in text) == ("argument", True)


async def test_a_node_that_cannot_be_reached_is_told_as_such():
    async def dial(path):
        raise NodeError(Reason.OFF, "no route to host", "switch it on")

    storage = Storage(service("/c.sock"), dial=dial, where="store")
    assert await kind_of(storage.exports()) == (
        "unreachable",
        "nbdserve on store cannot be reached: no route to host; switch it on",
    )


async def answered(tmp_path, *replies):
    """A storage whose server says this whatever is asked, and closes."""

    async def serve(reader, writer):
        await reader.readline()
        writer.write(b"".join(replies))
        writer.close()

    path = tmp_path / "fake.sock"
    return await asyncio.start_unix_server(serve, path), Storage(service(path))


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (b"", "closed the control connection"),
        (b"hello\n", "is no control socket of nbdserve"),
        (b'{"v": 2, "id": 1, "result": {}}\n', "is no control socket of nbdserve"),
        (b'{"v": 1, "id": 1, "result": {}}\n', "nbdserve tells no exports"),
        (b'{"v": 1, "id": 1, "result": {"exports": [{}]}}\n', "does not say 'name' of an export"),
        (b'{"v": 1, "id": 1, "result": {"exports": [7]}}\n', "of an export"),
    ],
)
async def test_an_answer_that_is_none_is_an_error_that_says_so(tmp_path, reply, told):
    server, storage = await answered(tmp_path, reply)
    async with server:
        assert told in (await kind_of(storage.exports()))[1]


async def test_a_table_that_is_too_large_is_not_sent(tmp_path):
    kind, text = await kind_of(Storage(service("/none")).add({"name": "x" * (2 << 20)}))
    assert (kind, "too much to ask for" in text) == ("argument", True)


async def test_a_server_that_says_nothing_is_given_up(tmp_path):
    async def serve(reader, writer):
        await reader.read()
        writer.close()

    path = tmp_path / "mute.sock"
    async with await asyncio.start_unix_server(serve, path):
        kind, text = await kind_of(Storage(service(path), patience=0.05).exports())
    assert (kind, "did not answer export.list in" in text) == ("unreachable", True)


async def test_where_each_node_has_its_own_it_is_asked_there(server):
    dialled = []

    def dial_node(node):
        async def dial(path):
            dialled.append(node.name)
            return await asyncio.open_unix_connection(path)

        return dial

    ham0 = Node(name="ham0", host="ham0")
    shared = Storage(service(server.control), dial_node=dial_node)
    assert shared.at(ham0) is shared
    each = Storage(service(server.control, socket="/run/nbd.sock"), dial_node=dial_node)
    await each.at(ham0).add({**DISK, "name": TEMPLATE.name})
    assert dialled == ["ham0"]
