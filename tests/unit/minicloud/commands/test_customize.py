"""`minicloud customize`, with a real nbdserve and a virt-customize that notes how it is called."""

import argparse
from dataclasses import dataclass, field

import pytest

from exportserver import ExportServer
from guestfacts import guest, origin
from minicloud.cluster import Cluster, Patience
from minicloud.commands import customize
from minicloud.errors import NodeError, Reason, StorageError, UsageError
from minicloud.model.guest import GuestKind, GuestState
from minicloud.model.inventory import Inventory, NbdService
from minicloud.storage.service import Storage
from nbdserve.testing.client import Client
from sshnodes import Home, free_port
from virtcustomize import VirtCustomize, toolbox

FAILED = (
    "virt-customize on this machine ended with status 1: apt failed; what it had done before stays "
    "on the disk"
)
DISK = {"name": "guest/web1", "exclusive": True, "source": {"type": "memory", "size": "1M"}}


@dataclass
class Watching:
    """Keeps what it is told."""

    steps: list[str] = field(default_factory=list)

    def step(self, text):
        self.steps.append(text)


@dataclass
class Context:
    inventory: Inventory
    cluster: Cluster
    storage: Storage
    only: tuple[str, ...] = ()
    dry_run: bool = False
    report: Watching = field(default_factory=Watching)


@pytest.fixture
def fake(tmp_path, monkeypatch):
    made = VirtCustomize(tmp_path / "fake")
    monkeypatch.setenv("PATH", f"{made.bin}:{toolbox(tmp_path / 'tools')}")
    return made


@pytest.fixture
def server(tmp_path):
    made = ExportServer(tmp_path / "nbdserve", "127.0.0.1", free_port())
    made.daemon = made.start()
    yield made
    made.stop()


@pytest.fixture
async def context(tmp_path, server):
    home = Home(tmp_path)
    nbd = NbdService(address="127.0.0.1", port=server.port, control=str(server.control))
    async with Cluster(home.inventory(), Patience(), home.keys) as cluster:
        made = Context(home.inventory(), cluster, Storage(nbd))
        await made.storage.add(DISK)
        yield made


def parsed(*words):
    parser = argparse.ArgumentParser()
    customize.add_arguments(parser)
    return parser.parse_args(words)


async def run(context, *words):
    return await customize.run(context, parsed(*words))


def test_options_keep_the_order_they_are_written_in():
    given = parsed("web1", "--update", "--install", "a,b", "--update", "--write=/f:x", "--smp", "2")
    assert given.options == [("update", ""), ("install", "a,b"), ("update", ""), ("write", "/f:x")]
    assert (given.smp, given.no_network) == (2, False)


def test_a_second_command_line_begins_anew():
    assert parsed("web1", "--update").options == [("update", "")]
    assert parsed("web1").options == []


async def test_an_export_is_customised(context, fake, server):
    fake.tell(output="virt-customize: Setting random password of root to x\n")
    outcome = await run(context, "guest/web1", "--root-password", "random", "--no-network")
    (seen,) = fake.runs
    assert seen.argv[:4] == ["--format", "raw", "-a", f"nbd://127.0.0.1:{server.port}/guest/web1"]
    assert seen.commands == "root-password random\nselinux-relabel\n"
    assert outcome.status == 0
    first, last = outcome.views[0].lines
    assert first == "guest/web1: virt-customize: Setting random password of root to x"
    assert last.startswith("guest/web1: customised on this machine in ")
    assert outcome.document["place"] == "this machine"
    assert "guest/web1: Setting a random seed" in context.report.steps


async def test_what_failed_is_told_with_its_last_words(context, fake):
    fake.tell(status="1\n", errors="E: no such package\nvirt-customize: error: apt failed\n")
    outcome = await run(context, "guest/web1", "--install", "nginx")
    assert outcome.status == 2
    assert outcome.errors == [
        "  E: no such package",
        "  virt-customize: error: apt failed",
        f"guest/web1: {FAILED}",
    ]
    assert outcome.document["errors"][0]["reason"] == "command"


async def test_a_dry_run_shows_what_would_be_done_and_no_secret(context, fake, tmp_path):
    tmp_path.joinpath("pw").write_text("hunter2\n")
    context.dry_run = True
    outcome = await run(context, "guest/web1", "--root-password", f"file:{tmp_path}/pw")
    assert fake.runs == []
    assert outcome.document["commands"] == ["root-password file:secrets/0", "selinux-relabel"]
    assert outcome.document["argv"][0] == "virt-customize"
    assert "hunter2" not in str(outcome)


async def test_who_stays_registered_is_told(context, fake, tmp_path):
    tmp_path.joinpath("pw").write_text("hunter2\n")
    words = ["--sm-credentials", f"me:file:{tmp_path}/pw", "--sm-register"]
    outcome = await run(context, "guest/web1", *words)
    assert "stays registered" in outcome.views[0].lines[0]


async def test_nothing_to_do_is_refused(context, fake):
    with pytest.raises(UsageError, match="nothing is to be done"):
        await run(context, "guest/web1")


async def test_an_export_that_is_in_use_is_refused(context, fake, server):
    async with await Client.connect_tcp("127.0.0.1", server.port, export="guest/web1"):
        with pytest.raises(StorageError, match=r"in use by 1 client\(s\).*nbdctl status") as error:
            await run(context, "guest/web1", "--update")
    assert error.value.kind == "busy"
    assert fake.runs == []


async def test_an_export_that_is_not_there_is_told(context, fake):
    with pytest.raises(StorageError, match="export guest/web2 is not served"):
        await run(context, "guest/web2", "--update")


async def test_a_guest_without_a_domain_is_found_by_its_export(context, fake):
    outcome = await run(context, "web1", "--update")
    assert outcome.document["export"] == "guest/web1"
    with pytest.raises(UsageError, match="there is no guest 'web2'"):
        await run(context, "web2", "--update")


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [(GuestKind.PET, "minicloud stop web1 first"), (GuestKind.CATTLE, "`customize` in its templ")],
)
def test_a_guest_that_runs_is_refused(kind, remedy):
    with pytest.raises(UsageError, match=f"web1 on ham1 is running; .*; .*{remedy}"):
        customize.check_off(guest(origin=origin(kind=kind)))
    customize.check_off(guest(state=GuestState.SHUTOFF, is_active=False))


async def test_a_node_that_does_not_say_whether_it_runs_the_guest_is_told(context, fake, tmp_path):
    home = Home(tmp_path)
    node = home.node(free_port())
    async with Cluster(home.inventory(node), Patience(), home.keys) as cluster:
        context.cluster = cluster
        with pytest.raises(
            NodeError, match=r"ham1 may be running the guest of guest/web1"
        ) as error:
            await run(context, "guest/web1", "--update")
    assert error.value.reason is Reason.REFUSED
