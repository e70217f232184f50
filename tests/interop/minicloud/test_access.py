"""minicloud meets real nodes: their sshd, their libvirtd, and every way these fail."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time

import pytest
import uvloop

from errortable import promises
from minicloud.cluster import Cluster, Patience
from minicloud.commands.status import status_outcome
from minicloud.errors import NodeError, Reason
from minicloud.inventory.reading import read_inventory
from minicloud.model.guest import GuestKind, GuestState
from minicloud.ssh.hostkeys import HostKeys
from waiting import eventually

METADATA = (
    '<minicloud:guest xmlns:minicloud="https://nbdserve.org/minicloud/1" kind="cattle"'
    ' template="deb" image="https://img.example/deb.raw.xz" export="guest/web1"'
    ' created="2026-01-01T00:00:00Z" user="ruth@desk"/>'
)
DOMAIN = (
    "<domain type='qemu'><name>web1</name><memory unit='MiB'>64</memory><vcpu>2</vcpu>"
    f"<metadata>{METADATA}</metadata><os><type arch='x86_64' machine='q35'>hvm</type></os></domain>"
)
GIVE_NOBODY_A_SHELL = """
sed 's#^nobody:.*#nobody:x:65534:65534::/:/bin/sh#' /etc/passwd >/run/lab/passwd
chmod 644 /run/lab/passwd
mount --bind /run/lab/passwd /etc/passwd
"""


class Operator:
    """Somebody with an inventory of the lab's nodes, and of one that was never there."""

    def __init__(self, lab, folder):
        self.lab = lab
        self.config = folder / "minicloud.toml"
        self.ssh_config = folder / "ssh_config"
        self.keys = HostKeys(folder / "known_hosts")
        self.write_config()
        places = {node.name: node.address for node in lab.nodes.values()}
        self.write_nodes(places)

    def write_nodes(self, places, more=""):
        self.config.write_text(
            "".join(
                f'[nodes.{name}]\nhost = "{place}"\nuser = "root"\nkey = "{self.lab.key}"\n{more}'
                for name, place in places.items()
            )
        )

    def write_config(self, text=""):
        self.ssh_config.write_text(
            f"{text}\nHost *\n  UserKnownHostsFile {self.lab.known_hosts}\n"
            "  GlobalKnownHostsFile none\n"
        )

    def cluster(self, **patience):
        inventory = read_inventory(self.config, ssh_config=self.ssh_config)
        return Cluster(inventory, Patience(**patience), self.keys)

    def run(self, *words):
        return subprocess.run(
            [sys.executable, "-m", "minicloud", "-c", self.config,
             "--ssh-config", self.ssh_config, *words],
            capture_output=True, text=True, timeout=120, check=False,
            env=os.environ | {"MINICLOUD_KNOWN_HOSTS": str(self.keys.own)},
        )  # fmt: skip


@pytest.fixture
def operator(lab, tmp_path, monkeypatch):
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return Operator(lab, tmp_path)


@contextlib.contextmanager
def sshd_with(node, text):
    """Let a node's sshd have further settings."""
    config = node.files.ssh / "sshd_config"
    before = config.read_text()
    try:
        config.write_text(text + before)
        node.stop("sshd")
        node.start("sshd")
        yield
    finally:
        config.write_text(before)
        node.stop("sshd")
        node.start("sshd")


async def facts_of(cluster, name="n1", **options):
    return await cluster.facts(name, **options)


def lines_of(printed):
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in printed.splitlines()
            if not line.startswith(" ")}  # fmt: skip


def test_nodes_that_are_up_say_what_they_have(operator, lab):
    lab.nodes[2].run(["virsh", "-q", "define", "/dev/stdin"], DOMAIN)
    done = operator.run("status")
    assert (done.returncode, done.stderr) == (0, "")
    assert lines_of(done.stdout) == {"n1": "on", "n2": "on", "n3": "on"}
    assert done.stdout.count("total: ") == 3
    assert not operator.keys.own.exists()  # their keys were known
    listed = json.loads(operator.run("list", "--json").stdout)
    [guest] = listed["guests"]
    assert (guest["name"], guest["node"], guest["state"]) == ("web1", "n2", "shut off")
    assert (guest["kind"], guest["image"]) == ("cattle", "https://img.example/deb.raw.xz")


def test_every_node_is_broken_in_its_own_way_and_nobody_waits_longer(operator, lab):
    """One is off, one black-holed, one has libvirtd stopped, one has another key."""
    places = {node.name: node.address for node in lab.nodes.values()}
    operator.write_nodes(places | {"never": f"{lab.hub.net}.77"})
    lab.nodes[1].stop("libvirtd")
    lab.nodes[2].blackhole()
    lab.nodes[3].change_host_key()
    begun = time.monotonic()
    done = operator.run("status", "--timeout", "15s")
    took = time.monotonic() - begun
    assert done.returncode == 2
    shown = lines_of(done.stdout)
    reasons = {name: text.partition(":")[0] for name, text in shown.items()}
    assert reasons == {
        "n1": "libvirtd-down", "n2": "unreachable", "n3": "host-key-changed", "never": "off",
    }  # fmt: skip
    assert shown["n3"].count("SHA256:") == 2
    assert str(lab.known_hosts) in shown["n3"]
    assert took <= 15 + 1


def test_what_hangs_is_told_apart_from_what_is_up(operator, lab):
    lab.nodes[1].hang("libvirtd")
    lab.nodes[2].hang("sshd")
    done = operator.run("status", "--timeout", "8s")
    assert done.returncode == 1
    reasons = {name: text.partition(":")[0] for name, text in lines_of(done.stdout).items()}
    assert reasons == {"n1": "libvirtd-hung", "n2": "no-ssh", "n3": "on"}


async def test_libvirtd_hangs_while_it_is_asked_and_is_asked_again_when_it_goes_on(operator, lab):
    async with operator.cluster(command=1) as cluster:
        await facts_of(cluster)
        lab.nodes[1].hang("libvirtd")
        await cluster.forget("n1")
        row, *_ = rows = await cluster.gather(
            lambda node: facts_of(cluster, node.name), cluster.nodes(["n1"])
        )
        [shown] = status_outcome(rows, cluster.inventory.nodes).views[0].lines
        assert row.error.reason is Reason.LIBVIRT_HUNG
        [promised] = [one for one in promises() if "did not answer" in one.text]
        assert promised.is_kept_by(shown.split(maxsplit=1)[1])
        lab.nodes[1].unhang("libvirtd")
        await cluster.forget("n1")
        assert (await facts_of(cluster)).hostname == "n1"


async def test_libvirtd_that_is_restarted_is_asked_again(operator, lab):
    async with operator.cluster() as cluster:
        hypervisor = await cluster.hypervisor("n1")
        assert await hypervisor.call(lambda connection: connection.getHostname()) == "n1"
        lab.nodes[1].stop("libvirtd")
        with pytest.raises(NodeError) as caught:
            await hypervisor.call(lambda connection: connection.getHostname())
        assert caught.value.reason in {Reason.LIBVIRT_LOST, Reason.NO_LIBVIRTD}
        lab.nodes[1].start("libvirtd")
        assert await hypervisor.call(lambda connection: connection.getHostname()) == "n1"


async def test_an_open_connection_leaves_nothing_in_the_temporary_folder(
    operator, tmp_path, monkeypatch
):
    (tmp_path / "t").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t"))
    async with operator.cluster() as cluster:
        hypervisor = await cluster.hypervisor("n1")
        assert await hypervisor.call(lambda connection: connection.getHostname()) == "n1"
        assert list((tmp_path / "t").iterdir()) == []
        assert await hypervisor.call(lambda connection: connection.getHostname()) == "n1"


async def test_calls_overlap_on_one_connection(operator):
    async with operator.cluster() as cluster:
        hypervisor = await cluster.hypervisor("n1")
        names = await asyncio.gather(
            *(hypervisor.call(lambda connection: connection.getHostname()) for _ in range(20))
        )
        assert names == ["n1"] * 20


async def test_what_libvirt_refuses_has_its_words_and_its_error(operator):
    async with operator.cluster() as cluster:
        hypervisor = await cluster.hypervisor("n1")
        with pytest.raises(NodeError, match="no domain with matching name 'none'") as caught:
            await hypervisor.call(lambda connection: connection.lookupByName("none").XMLDesc())
        assert caught.value.reason is Reason.LIBVIRT
        import libvirt

        assert caught.value.__cause__.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN


async def test_where_sshd_forwards_no_sockets_virt_ssh_helper_is_spoken_to(operator, lab):
    with sshd_with(lab.nodes[1], "AllowStreamLocalForwarding no\n"):
        async with operator.cluster() as cluster:
            [row] = await cluster.gather(lambda node: facts_of(cluster), cluster.nodes(["n1"]))
    assert (row.value.hostname, row.note) == ("n1", "")


async def test_without_libvirt_python_virsh_is_asked(operator, lab, monkeypatch):
    from minicloud.hypervisor import binding

    lab.nodes[1].run(["virsh", "-q", "define", "/dev/stdin"], DOMAIN)
    async with operator.cluster() as cluster:
        by_libvirt = await facts_of(cluster)
    monkeypatch.setitem(sys.modules, "libvirt", None)
    binding.libvirt_module.cache_clear()
    try:
        async with operator.cluster() as cluster:
            [row] = await cluster.gather(lambda node: facts_of(cluster), cluster.nodes(["n1"]))
    finally:
        binding.libvirt_module.cache_clear()
    assert row.note == "by virsh"
    assert row.value.guests == by_libvirt.guests
    [guest] = row.value.guests
    assert (guest.state, guest.origin.kind) == (GuestState.SHUTOFF, GuestKind.CATTLE)
    assert (row.value.libvirt, row.value.qemu) == (by_libvirt.libvirt, by_libvirt.qemu)


async def test_a_node_that_allows_nothing_is_told(operator, lab):
    with sshd_with(lab.nodes[1], "AllowStreamLocalForwarding no\nForceCommand /bin/false\n"):
        async with operator.cluster() as cluster:
            with pytest.raises(NodeError) as caught:
                await facts_of(cluster)
    assert caught.value.reason is Reason.NO_FORWARDING


async def test_a_user_who_may_not_use_libvirt_is_named(operator, lab):
    node = lab.nodes[1]
    places = {"n1": node.address}
    node.run(["sh", "-c", GIVE_NOBODY_A_SHELL])
    try:
        operator.write_nodes(places)
        operator.config.write_text(operator.config.read_text().replace('"root"', '"nobody"'))
        async with operator.cluster() as cluster:
            with pytest.raises(NodeError) as caught:
                await facts_of(cluster)
    finally:
        node.run(["umount", "/etc/passwd"])
    assert caught.value.reason is Reason.LIBVIRT_PERMISSION
    assert "user nobody may not use /run/libvirt/libvirt-sock" in caught.value.message


async def test_an_agent_has_the_key(operator, lab, tmp_path, monkeypatch):
    agent = tmp_path / "agent"
    running = subprocess.Popen(["ssh-agent", "-D", "-a", agent], stdout=subprocess.DEVNULL)
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
        eventually(agent.exists)
        subprocess.run(["ssh-add", "-q", lab.key], check=True)
        operator.config.write_text(f'[nodes.n1]\nhost = "{lab.nodes[1].address}"\nuser = "root"\n')
        monkeypatch.setenv("HOME", str(tmp_path))
        async with operator.cluster() as cluster:
            assert (await facts_of(cluster)).hostname == "n1"
    finally:
        running.terminate()
        running.wait()


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_nodes_behind_a_jump_host(operator, lab, loop_factory):
    jump, *behind = lab.nodes.values()
    operator.write_config(
        f"Host {' '.join(node.address for node in behind)}\n  ProxyJump root@{jump.address}\n"
        f"Host *\n  IdentityFile {lab.key}\n"
    )

    async def hostnames():
        async with operator.cluster() as cluster:
            rows = await cluster.gather(
                lambda node: facts_of(cluster, node.name), cluster.nodes(["n2", "n3"])
            )
            return [row.value and row.value.hostname for row in rows]

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert runner.run(hostnames()) == ["n2", "n3"]


async def test_a_node_that_is_switched_on_answers_after_it_was_off(operator, lab):
    lab.nodes[1].off()
    async with operator.cluster(connect=1) as cluster:
        with pytest.raises(NodeError) as caught:
            await facts_of(cluster)
        assert caught.value.reason in {Reason.OFF, Reason.UNREACHABLE}
        lab.nodes[1].on()
        await cluster.forget("n1")
        assert (await facts_of(cluster)).hostname == "n1"
