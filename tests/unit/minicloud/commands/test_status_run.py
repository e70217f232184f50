"""`status` and `list` as they are run: on a node that virsh answers for."""

import argparse
import sys
from pathlib import Path

import pytest

from minicloud.cluster import Cluster, Patience
from minicloud.commands import list as list_command
from minicloud.commands import status
from minicloud.commands.context import Context
from minicloud.hypervisor import binding
from sshnodes import Faults, Home, free_port, serving

GOLDEN = Path(__file__).parents[1] / "hypervisor" / "golden"


class Watcher:
    """Somebody who watches a long step."""

    def __init__(self):
        self.seen = []

    def step(self, text):
        self.seen.append(text)

    def progress(self, done, total, unit="B"):
        self.seen.append((done, total, unit))


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


@pytest.fixture
def faults(tmp_path, monkeypatch):
    """A node whose virsh prints what a real one did; libvirt-python is not here."""
    monkeypatch.setitem(sys.modules, "libvirt", None)
    binding.libvirt_module.cache_clear()
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "virsh").write_text(
        f'#!/bin/sh\ncase "$4" in *nodeinfo*) cat {GOLDEN}/virsh-facts.txt;;'
        f" *) cat {GOLDEN}/virsh-metadata.txt;; esac\n"
    )
    (folder / "virsh").chmod(0o755)
    yield Faults(path=f"{folder}:/usr/bin:/bin")
    binding.libvirt_module.cache_clear()


def arguments(command, *words):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


def context_of(cluster, *only):
    return Context(
        inventory=cluster.inventory, cluster=cluster, storage=None, only=only, dry_run=False,
        timeout=None, report=Watcher(), ask=None, terminal=None,
    )  # fmt: skip


async def test_only_the_chosen_nodes_are_asked_and_the_watcher_is_told(home, faults):
    async with serving(faults) as port:
        inventory = home.inventory(home.node(port), home.node(free_port(), "ham2"))
        async with Cluster(inventory, Patience(), home.keys) as cluster:
            context = context_of(cluster, "ham1")
            outcome = await status.run(context, arguments(status))
    assert outcome.status == 0
    assert outcome.views[0].lines[0].startswith("ham1   on (by virsh)")
    assert context.report.seen == ["asking the nodes", (1, 1, "nodes")]


async def test_a_watched_node_is_asked_anew_each_time(home, faults):
    port = free_port()
    inventory = home.inventory(home.node(port))
    watch = arguments(status, "--watch")
    async with Cluster(inventory, Patience(), home.keys) as cluster:
        context = context_of(cluster)
        assert (await status.run(context, watch)).document["nodes"][0]["state"] == "refused"
        async with serving(faults, port=port):
            for _ in range(2):
                outcome = await status.run(context, watch)
                assert outcome.document["nodes"][0]["state"] == "on"
            assert len(faults.commands) == 2
            assert faults.logins == 1
    assert status.repeats(watch) > 0
    assert status.repeats(arguments(status)) is None


async def test_guests_are_listed_even_where_nobody_can_ask_for_their_addresses(home, faults):
    async with (
        serving(faults) as port,
        Cluster(home.inventory(home.node(port)), Patience(), home.keys) as cluster,
    ):
        outcome = await list_command.run(context_of(cluster), arguments(list_command))
    assert [row[0] for row in outcome.views[0].rows] == ["plain", "web 1;x"]
    assert [guest["ip"] for guest in outcome.document["guests"]] == [None, None]
    assert outcome.status == 0
