"""Whose disk `destroy` may remove; that it does is in tests/interop."""

import subprocess
from contextlib import contextmanager

import pytest

from daemon import daemon
from guestfacts import guest, origin
from guestplans import make_plan
from minicloud.collecting import remains_of
from minicloud.commands.destroy import clear, doubt_of, sharer_of
from minicloud.domain.xml import domain_xml
from minicloud.errors import NodeError, Reason, StorageError
from minicloud.model.guest import GuestKind, GuestState, NodeFacts
from minicloud.model.inventory import NbdService
from minicloud.model.outcome import Row
from minicloud.moving.record import Record, record_export
from minicloud.storage.service import Storage
from tools import ENVIRONMENT

OFF = {"state": GuestState.SHUTOFF, "is_active": False}


def node(name, *guests):
    facts = NodeFacts(
        hostname=name, cpus=1, memory=1, memory_available=None, libvirt=(9, 0, 0), qemu=None,
        guests=guests,
    )  # fmt: skip
    return Row(name, facts, None)


def test_a_guest_recovered_elsewhere_keeps_its_disk_from_the_stale_definition():
    stale, moved = guest(node="ham0", **OFF), guest(node="ham1")
    rows = [node("ham0", stale), node("ham1", moved)]
    assert sharer_of(stale, rows) == "ham1:web1"
    assert sharer_of(moved, rows) == "ham0:web1"


def test_a_guest_alone_on_its_disk_shares_it_with_nobody():
    mine = guest(node="ham0")
    others = [guest(uuid="2", name="web2", origin=origin(export="guest/web2")), guest(origin=None)]
    dead = Row("ham2", None, NodeError(Reason.OFF, "off"))
    assert sharer_of(mine, [node("ham0", mine), node("ham1", *others), dead]) == ""


def described(node, kind=GuestKind.CATTLE):
    plan = make_plan(kind=kind)
    export = record_export("web1", Record(node, domain_xml(plan)))
    return {export["name"]: export["description"]}


def test_what_is_left_of_a_guest_is_doubted_where_its_node_is_not_asked():
    assert doubt_of("web1", described("ham9"), ["ham0"]) == (
        "was put on ham9, which is not in the inventory"
    )
    assert doubt_of("web1", described("ham0"), ["ham0"]) == ""
    assert doubt_of("web1", {"guest/web1": "disk of guest web1"}, ["ham0"]) == ""


def test_what_is_left_of_a_pet_is_doubted():
    assert doubt_of("web1", described("ham0", kind=GuestKind.PET), ["ham0"]) == "was a pet"


@pytest.fixture
def served(tmp_path):
    options = [
        "--control", tmp_path / "c.sock", "--state-dir", tmp_path / "state",
        "--overlay-dir", tmp_path / "overlays",
    ]  # fmt: skip
    with daemon(options=options) as server:
        server.control, server.overlays = str(tmp_path / "c.sock"), str(tmp_path / "overlays")
        yield server


async def make_web1(server):
    storage = Storage(NbdService(address="localhost", control=server.control))
    await storage.add({
        "name": "guest/web1", "exclusive": True,
        "layers": [{"type": "cow", "path": f"{server.overlays}/web1.cow"}],
        "source": {"type": "null", "size": "1M"},
    })  # fmt: skip
    await storage.add({"name": "seed/web1", "source": {"type": "null", "size": "1M"}})
    return storage, remains_of("web1", await storage.exports(), await storage.overlays())


@contextmanager
def client(uri):
    """Hold an export as qemu would."""
    script = "print('in', flush=True); import sys; sys.stdin.read()"
    argv = ["nbdsh", "-u", uri, "-c", script]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, env=ENVIRONMENT, stdin=pipe, stdout=pipe) as held:
        assert held.stdout.readline() == b"in\n"
        yield held
        held.stdin.close()


async def test_a_disk_that_somebody_uses_is_not_removed(served):
    storage, remains = await make_web1(served)
    with client(served.uri("guest/web1")):
        with pytest.raises(StorageError, match="guest/web1 has clients") as caught:
            await clear(storage, remains, keep_disk=False, patience=0)
        assert caught.value.kind == "busy"
        assert [one.connections for one in await storage.exports()] == [1, 0]
    assert len(await storage.overlays()) == 1


async def test_a_disk_is_removed_once_its_guest_has_let_go(served):
    storage, remains = await make_web1(served)
    with client(served.uri("guest/web1")) as held:
        held.kill()
        await clear(storage, remains, keep_disk=False, patience=60)
    assert await storage.exports() == []
    assert await storage.overlays() == []
