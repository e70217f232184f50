"""Adding and removing at awkward moments: cancelled midway, one name twice, a list not written."""

import asyncio
import json
import socket
import struct
import threading

import pytest

from nbdserve.control.messages import CommandError
from nbdserve.errors import DeviceError, NoSpaceError
from nbdserve.server.clients import Clients
from nbdserve.server.exportcommands import ExportCommands
from nbdserve.server.exports import Exports
from nbdserve.server.limits import Limits
from nbdserve.server.report import Service
from nbdserve.server.state import AddedExports

DISK = {"export": {"name": "disk", "source": {"type": "memory", "size": "1M"}}}
REMOVE = {"export": "disk", "force": True}


async def ignore(_):
    """Take a report."""


class Daemon:
    """What stands behind the commands of a daemon, and clients of its exports."""

    def __init__(self, added):
        self.exports = Exports([])
        self.clients = Clients(self.exports, Limits(), most=10)
        self.commands = ExportCommands(Service(self.exports, self.clients), added)
        self.sockets = []

    async def add(self):
        return await self.commands.add(DISK, ignore)

    async def remove(self):
        return await self.commands.remove(REMOVE, ignore)

    async def work(self):
        """Use the disk without end, as warming does."""
        with self.exports.in_use("disk"):
            await asyncio.Event().wait()

    async def connect(self):
        """Connect a client to the disk; return its socket, which is served now."""
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        self.sockets.append(ours)
        self.clients.add(theirs, peer="test")
        loop = asyncio.get_running_loop()
        await loop.sock_recv(ours, 18)
        wanted = b"disk"  # NBD_OPT_EXPORT_NAME, whose answer is size and flags
        option = b"IHAVEOPT" + struct.pack(">II", 1, len(wanted)) + wanted
        await loop.sock_sendall(ours, struct.pack(">I", 3) + option)
        answer = await loop.sock_recv(ours, 10)
        assert struct.unpack(">QH", answer)[0] == 1 << 20
        return ours

    async def is_served(self, sock):
        """Tell whether a client still gets answers."""
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, struct.pack(">IHHQQI", 0x25609513, 0, 0, 7, 0, 512))
        answer = await loop.sock_recv(sock, 16 + 512)
        return len(answer) > 0


@pytest.fixture
async def daemon(tmp_path):
    with AddedExports.kept_in(tmp_path / "state") as added:
        made = Daemon(added)
        yield made
        for sock in made.sockets:
            sock.close()
        await made.clients.gone()
        await made.exports.close()


@pytest.fixture
def saving(monkeypatch):
    """Have lists written only when the test lets it: (begun, go on)."""
    begun, go_on = threading.Semaphore(0), threading.Event()
    real = AddedExports.save

    def held_up(self, added):
        begun.release()
        assert go_on.wait(30)
        real(self, added)

    monkeypatch.setattr(AddedExports, "save", held_up)
    return begun, go_on


def kept(tmp_path):
    content = json.loads((tmp_path / "state" / "exports.json").read_text())
    return [table["name"] for table in content["exports"]]


async def until(true):
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110 -- what a thread does sets no event of ours
            await asyncio.sleep(0)


async def test_a_removal_that_is_cancelled_closes_the_export_all_the_same(daemon, tmp_path):
    await daemon.add()
    (slot,) = daemon.exports.slots()
    gate = asyncio.Event()

    async def held_up():
        await gate.wait()

    chain, close = slot.chain, slot.chain.close
    closed = asyncio.Event()

    async def close_late():
        await held_up()
        await close()
        closed.set()

    chain.close = close_late
    removing = asyncio.create_task(daemon.remove())
    await until(lambda: slot.chain is None)
    removing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await removing
    assert kept(tmp_path) == []
    ending = asyncio.create_task(daemon.exports.close())
    await asyncio.sleep(0)
    assert not ending.done(), "it waits for what is being closed"
    gate.set()
    await ending
    assert closed.is_set()


async def test_who_has_the_next_export_of_the_name_is_left_alone(daemon, saving, tmp_path):
    begun, go_on = saving
    go_on.set()
    await daemon.add()
    old = await daemon.connect()
    go_on.clear()
    while begun.acquire(blocking=False):
        pass
    removing = asyncio.create_task(daemon.remove())
    await until(lambda: begun.acquire(blocking=False))
    adding = asyncio.create_task(daemon.add())
    await until(lambda: daemon.exports.names() == ["disk"])
    new = await daemon.connect()
    go_on.set()
    await removing
    await adding
    assert await asyncio.get_running_loop().sock_recv(old, 1) == b""
    assert await daemon.is_served(new)
    assert kept(tmp_path) == ["disk"]


async def test_a_removal_that_cannot_be_kept_does_not_displace_the_next_one(daemon, monkeypatch):
    await daemon.add()
    (old,) = daemon.exports.slots()
    begun, go_on = threading.Semaphore(0), threading.Event()
    real = AddedExports.save

    def full_once(self, added):
        monkeypatch.setattr(AddedExports, "save", real)
        begun.release()
        assert go_on.wait(30)
        raise NoSpaceError("no room")

    monkeypatch.setattr(AddedExports, "save", full_once)
    removing = asyncio.create_task(daemon.remove())
    await until(lambda: begun.acquire(blocking=False))
    adding = asyncio.create_task(daemon.add())
    await until(lambda: daemon.exports.names() == ["disk"])
    go_on.set()
    with pytest.raises(NoSpaceError):
        await removing
    await adding
    (new,) = daemon.exports.slots()
    assert new is not old
    assert (old.chain, new.chain is None) == (None, False)


async def test_what_is_still_being_added_is_not_kept_by_others(daemon, monkeypatch, tmp_path):
    gate = asyncio.Event()
    real = Exports._open

    async def held_up(self, slot):
        await gate.wait()
        if slot.spec.name == "disk":
            raise DeviceError("away")
        return await real(self, slot)

    monkeypatch.setattr(Exports, "_open", held_up)
    adding = asyncio.create_task(daemon.add())
    await until(lambda: daemon.exports.names() == ["disk"])
    await daemon.commands._save()
    assert kept(tmp_path) == []
    gate.set()
    with pytest.raises(DeviceError, match="away"):
        await adding


async def test_an_addition_cancelled_while_it_is_kept_is_not_kept(daemon, saving, tmp_path):
    begun, go_on = saving
    adding = asyncio.create_task(daemon.add())
    await until(lambda: begun.acquire(blocking=False))
    adding.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await adding
    assert (daemon.exports.names(), kept(tmp_path)) == ([], [])


async def test_work_on_an_export_ends_only_by_force(daemon):
    await daemon.add()
    working = asyncio.create_task(daemon.work())
    await asyncio.sleep(0)
    with pytest.raises(CommandError, match="--force ends that"):
        await daemon.commands.remove({"export": "disk"}, ignore)
    await daemon.remove()
    with pytest.raises(DeviceError, match="removed meanwhile"):
        await working
    assert not working.cancelled()


async def test_work_that_is_cancelled_by_who_asked_is_cancelled(daemon):
    await daemon.add()
    working = asyncio.create_task(daemon.work())
    await asyncio.sleep(0)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    (slot,) = daemon.exports.slots()
    assert slot.works == set()
