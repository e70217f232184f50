"""Looking at nodes: ssh servers in this process, real sockets, and no libvirtd."""

import asyncio
import contextlib
import time

import pytest

from examined import abilities, exam_of
from minicloud.cluster import Cluster, Patience
from minicloud.doctor.exam import Exam
from minicloud.doctor.gathering import examine, examine_ways, is_worth_booting, server_status
from minicloud.doctor.survey import Survey
from minicloud.errors import NodeError, Reason, StorageError
from minicloud.hypervisor.sockets import Sockets
from minicloud.model.inventory import NbdService, Node, VirtType
from minicloud.moving.probe import Probe, Reach
from minicloud.storage.service import Storage
from sshnodes import Faults, Home, free_port, serving

NBD = NbdService(address="nbd.lan")


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


@contextlib.asynccontextmanager
async def examined(home, faults, *, nbd=None, **more):
    """Examine one node; gives the exam and its cluster."""
    async with serving(faults) as port:
        node = home.node(port, **more)
        inventory = home.inventory(node)
        object.__setattr__(inventory, "nbd", nbd)
        async with Cluster(inventory, Patience(connect=1, command=2), home.keys) as cluster:
            exam = Exam(node)
            await examine(cluster, Storage(nbd), exam)
            yield exam, cluster


@contextlib.asynccontextmanager
async def listening(path, said=b""):
    async def speak(reader, writer):
        writer.write(said)
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(speak, path)
    try:
        yield
    finally:
        server.close()
        await server.wait_closed()


async def test_a_login_tells_by_which_key_and_which_known_host_key(home, tmp_path):
    async with serving() as port:
        home.trust(port)
        node = home.node(port, libvirt_socket=str(tmp_path / "none"))
        async with Cluster(home.inventory(node), Patience(), home.keys) as cluster:
            exam = Exam(node)
            await examine(cluster, Storage(None), exam)
    assert (exam.access.address, exam.access.port) == ("127.0.0.1", port)
    assert exam.access.known_at == f"{home.known}:1"
    assert exam.access.key == "ssh-ed25519 key of a file (client)"
    assert (exam.access.user, exam.note) == ("root", "")


async def test_a_new_host_key_is_noted(home, tmp_path):
    async with examined(home, Faults(), libvirt_socket=str(tmp_path / "none")) as (exam, _):
        assert exam.access.known_at == ""
        assert exam.note.startswith("new host key SHA256:")


async def test_a_login_that_fails_is_all_that_is_known(home):
    async with examined(home, Faults(lets_in=False)) as (exam, _):
        assert exam.access.reason is Reason.AUTH
        assert (exam.survey, exam.abilities, exam.probe) == (None, None, None)


async def test_a_socket_that_opens_is_noted_and_one_that_does_not_is_looked_at(home, tmp_path):
    path = str(tmp_path / "libvirt")
    async with listening(path), examined(home, Faults(), libvirt_socket=path) as (exam, _):
        assert (exam.opened, exam.sockets) == (path, None)
    async with (
        listening(path),
        examined(home, Faults(forwards=False), libvirt_socket=path) as (exam, _),
    ):
        assert exam.opened == ""
        assert isinstance(exam.sockets, Sockets)
        assert exam.sockets.usable.path == path


async def test_a_node_without_a_shell_is_still_examined(home, tmp_path):
    faults = Faults(has_shell=False)
    async with examined(home, faults, libvirt_socket=str(tmp_path / "none")) as (exam, _):
        assert exam.survey == Survey(modules=set(), tools=set())
        assert exam.sockets.reason is Reason.NO_FORWARDING
        assert isinstance(exam.abilities, NodeError)


async def test_a_clock_that_is_wrong_is_read_between_our_own_two_looks(home, tmp_path):
    (tmp_path / "bin").mkdir()
    for tool in ("sh", "uname", "stat", "cat"):
        (tmp_path / "bin" / tool).symlink_to(f"/usr/bin/{tool}")
    date = tmp_path / "bin" / "date"
    date.write_text("#!/bin/sh\necho 1000.5\n")
    date.chmod(0o755)
    faults = Faults(path=str(tmp_path / "bin"))
    before = time.time()
    async with examined(home, faults, libvirt_socket=str(tmp_path / "none")) as (exam, _):
        assert exam.survey.seconds == 1000.5
        assert before <= exam.clock.asked <= exam.clock.told <= time.time()


@pytest.mark.parametrize(("said", "answer"), [(b"NBDMAGICIHAVEOPT", True), (b"SSH-2.0-x\n", False)])
async def test_exports_of_the_nodes_own_are_greeted(home, tmp_path, said, answer):
    path = str(tmp_path / "nbd")
    nbd = NbdService(address="localhost", socket=path)
    async with (
        listening(path, said),
        examined(home, Faults(), nbd=nbd, libvirt_socket=str(tmp_path / "none")) as (exam, _),
    ):
        assert exam.nbd is answer


async def test_exports_are_tried_from_the_node_and_so_are_other_nodes(home, tmp_path):
    port = free_port()
    nbd = NbdService(address="127.0.0.1", port=port)
    async with examined(home, Faults(), nbd=nbd, libvirt_socket=str(tmp_path / "no")) as (exam, it):
        assert exam.probe.addresses == {("127.0.0.1", port): Reach.REFUSED}
        targets = [Node(name="ham2", host="127.0.0.2"), Node(name="ham3", host="no.invalid")]
        await examine_ways(it, exam, targets)
        reached = {name: list(found.addresses.values()) for name, found in exam.migration.items()}
        assert reached["ham2"] == [Reach.REFUSED]
        assert reached["ham3"] == [Reach.NO_NAME]


async def test_a_server_of_exports_that_is_not_there_is_an_answer(tmp_path):
    nbd = NbdService(address="nbd.lan", control=str(tmp_path / "none"))
    found = await server_status(Storage(nbd))
    assert isinstance(found, StorageError)
    assert found.kind == "unreachable"


@pytest.mark.parametrize(
    ("broken", "is_worth"),
    [
        ({}, True),
        ({"node": Node(name="ham1", host="h", virt_type=VirtType.QEMU)}, False),
        ({"survey": Survey(arch="x86_64")}, False),
        ({"survey": NodeError(Reason.COMMAND, "no shell")}, False),
        ({"abilities": NodeError(Reason.LIBVIRT_HUNG, "hung")}, False),
        ({"abilities": abilities(qemu=None)}, False),
        ({"probe": Probe()}, False),
    ],
)
def test_a_guest_is_tried_only_where_it_would_prove_something(broken, is_worth):
    assert is_worth_booting(exam_of(**broken), NBD) is is_worth
    assert not is_worth_booting(exam_of(**broken), None)
