"""Where a customisation is made, and what becomes of a subscription when it fails."""

import asyncio
import logging

import pytest

from minicloud.customization.command import Command
from minicloud.customization.prepared import prepare
from minicloud.customization.tool import Appliance
from minicloud.domain.plan import TcpServer, UnixServer
from minicloud.errors import NodeError, Reason, UsageError
from sshnodes import free_port
from virtcustomize import LATER, VirtCustomize, greeting

COMMANDS = (Command("hostname", "web1"),)
REGISTERED = (
    Command("sm-credentials", "me:file:", b"hunter2\n"),
    Command("sm-register"),
    Command("update"),
    Command("sm-unregister"),
)


def nothing(_):
    pass


@pytest.fixture
def server(exports):
    return TcpServer("127.0.0.1", exports)


async def test_this_machine_comes_first(fake, here, cluster, server):
    here(fake)
    prepared = await prepare(await cluster(fake), COMMANDS, Appliance(), server)
    assert prepared.place.name == "this machine"


async def test_else_the_first_node_that_has_it(tmp_path, fake, here, cluster, server):
    other = VirtCustomize(tmp_path / "other")
    made = await cluster(None, fake, other)
    prepared = await prepare(made, COMMANDS, Appliance(), server)
    assert prepared.place.name == "ham1"
    applied = await prepared.apply("guest/web1", nothing)
    assert (applied.failure, applied.place, len(fake.runs)) == (None, "ham1", 1)


async def test_a_node_may_be_named(tmp_path, fake, here, cluster, server):
    here(fake)
    other = VirtCustomize(tmp_path / "other")
    made = await cluster(fake, other)
    prepared = await prepare(made, COMMANDS, Appliance(), server, nodes=made.nodes(["ham1"]))
    assert prepared.place.name == "ham1"


async def test_one_that_lacks_a_word_is_passed_over(tmp_path, fake, here, cluster, server):
    here(fake)
    later = VirtCustomize(tmp_path / "later", LATER, "1.56.0")
    commands = (Command("chown", "0:0:/x"),)
    prepared = await prepare(await cluster(later), commands, Appliance(), server)
    assert prepared.place.name == "ham0"


async def test_where_it_is_nowhere_one_message_says_how_to_have_it(here, cluster, server):
    with pytest.raises(NodeError) as caught:
        await prepare(await cluster(None, None), COMMANDS, Appliance(), server)
    assert caught.value.reason is Reason.TOOL
    assert str(caught.value) == (
        "virt-customize was not found on this machine, ham0 or ham1; install guestfs-tools "
        "(Fedora/RHEL: dnf install guestfs-tools; Debian/Ubuntu: apt install guestfs-tools), or "
        "use --cloud-init for host name, users, keys and packages"
    )


async def test_why_each_machine_will_not_do_is_told(home, fake, here, cluster):
    here(fake)
    port = free_port()
    made = await cluster(None, fake)
    with pytest.raises(NodeError) as caught:
        await prepare(made, COMMANDS, Appliance(), TcpServer("127.0.0.1", port))
    text = str(caught.value)
    assert "virt-customize was not found on ham0;" in text
    assert f"this machine: it does not reach the exports at 127.0.0.1 port {port}" in text
    assert f"ham1: it does not reach the exports at 127.0.0.1 port {port}" in text


async def test_what_greets_as_no_nbd_server_is_told(fake, here, cluster):
    here(fake)
    async with greeting(b"HTTP/1.1 400 ") as port:
        with pytest.raises(NodeError, match="what answers there speaks no NBD"):
            await prepare(await cluster(), COMMANDS, Appliance(), TcpServer("127.0.0.1", port))


async def test_exports_may_be_on_a_socket_of_the_node(tmp_path, fake, here, cluster):
    path = str(tmp_path / "s")

    async def greet(_, writer):
        writer.write(b"NBDMAGIC")
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(greet, path):
        made = await cluster(fake)
        prepared = await prepare(made, COMMANDS, Appliance(), UnixServer(path), nodes=made.nodes())
    assert prepared.argv("guest/web1")[4] == f"nbd:///guest/web1?socket={path}"


async def test_tls_is_refused(cluster):
    with pytest.raises(UsageError, match="cannot use exports over TLS"):
        await prepare(await cluster(), COMMANDS, Appliance(), TcpServer("x", 1, tls=True))


async def registered(fake, here, cluster, server, words=None):
    here(fake)
    prepared = await prepare(await cluster(), REGISTERED, Appliance(), server)
    return await prepared.apply("guest/web1", nothing)


async def test_a_subscription_is_given_back_after_a_failure(fake, here, cluster, server):
    fake.tell(status="1\n0\n", errors="log\nvirt-customize: error: update: no space\n")
    applied = await registered(fake, here, cluster, server)
    first, second = fake.runs
    assert "sm-register" in first.commands
    assert second.commands.startswith("run-command if subscription-manager identity")
    assert second.argv == first.argv
    assert str(applied.failure) == (
        "virt-customize on this machine ended with status 1: update: no space; the guest's "
        "subscription was given back; what it had done before stays on the disk"
    )


async def test_it_is_told_if_that_fails_too(fake, here, cluster, server):
    fake.tell(status="1\n1\n")
    applied = await registered(fake, here, cluster, server)
    assert "may still be registered" in str(applied.failure)
    assert "it said nothing" in str(applied.failure)


async def test_nothing_is_given_back_after_a_success(fake, here, cluster, server):
    fake.tell(errors="virt-customize: warning: mind this\n")
    applied = await registered(fake, here, cluster, server)
    assert (applied.failure, len(fake.runs)) == (None, 1)
    assert applied.output == ("virt-customize: warning: mind this",)


async def test_a_later_tool_is_fed_a_script_with_the_password(tmp_path, here, cluster, server):
    later = VirtCustomize(tmp_path / "later", LATER, "1.56.0")
    await registered(later, here, cluster, server)
    (run,) = later.runs
    assert run.commands == ("run secrets/0\nupdate\nrun-command subscription-manager unregister\n")
    assert b"--password=hunter2" in run.seen("secrets/0")


async def test_who_interrupts_is_told_of_the_subscription(fake, here, cluster, server, caplog):
    fake.tell(hang="")
    hangs = asyncio.Event()
    here(fake)
    prepared = await prepare(await cluster(), REGISTERED, Appliance(), server)

    def on_step(text):
        if text.startswith("hanging"):
            hangs.set()

    task = asyncio.create_task(prepared.apply("guest/web1", on_step))
    await hangs.wait()
    task.cancel()
    with caplog.at_level(logging.ERROR), pytest.raises(asyncio.CancelledError):
        await task
    assert "minicloud customize guest/web1 --sm-unregister" in caplog.text
