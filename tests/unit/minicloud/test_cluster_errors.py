"""Every line that docs/how-to/cluster-errors.md promises, made for real and compared.

Each scenario breaks one thing, and gives what differs from a node that would answer.
"""

import asyncio
import socket
import sys
import threading

import asyncssh
import libvirt
import pytest

from brokenlibvirtd import mute, refusing
from errortable import LAB_ALONE, promises
from minicloud.cluster import Cluster, Patience
from minicloud.commands.status import status_outcome
from minicloud.hypervisor import binding
from minicloud.ssh.hostkeys import Policy
from sshnodes import Faults, Home, black_hole, free_port, key, serving, talking

PROMISES = promises()
SCENARIOS = {}


def scenario(reason, words=""):
    """Note a function as what makes the promise of this reason with these words."""

    def note(function):
        SCENARIOS[reason, words] = function
        return function

    return note


@pytest.fixture
def lay(tmp_path, monkeypatch):
    """What a scenario has in hand."""
    return Lay(tmp_path, monkeypatch)


class Lay:
    def __init__(self, folder, monkeypatch):
        self.home = Home(folder)
        self.monkeypatch = monkeypatch
        self.stack = None
        self.socket = folder / "libvirt"
        self.bin = folder / "bin"
        self.bin.mkdir()
        for tool in ("sh", "readlink", "grep", "id", "cat", "env", "sleep"):
            (self.bin / tool).symlink_to(f"/usr/bin/{tool}")

    async def node(self, faults=None, **more):
        faults = faults or Faults()
        faults.path = str(self.bin)
        port = await self.stack.enter_async_context(serving(faults))
        return self.home.node(port, libvirt_socket=str(self.socket), **more)

    def program(self, name, text):
        (self.bin / name).unlink(missing_ok=True)
        (self.bin / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.bin / name).chmod(0o755)

    def without_libvirt_python(self):
        binding.libvirt_module.cache_clear()
        self.stack.callback(binding.libvirt_module.cache_clear)
        self.monkeypatch.setitem(sys.modules, "libvirt", None)


@scenario("off")
async def the_jump_host_finds_no_route(lay):
    class NoRoute(asyncssh.SSHServer):
        def connection_requested(self, *_):
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "No route to host")

        def begin_auth(self, username):
            return False

    server = await lay.stack.enter_async_context(
        await asyncssh.create_server(NoRoute, "127.0.0.1", 0, server_host_keys=[key("host")])
    )
    lay.home.write_config(
        f"Host jump\n  HostName 127.0.0.1\n  Port {server.get_port()}\n"
        "Host 127.0.0.1\n  ProxyJump jump\n"
    )
    return lay.home.node(22)


@scenario("unreachable")
async def the_kernel_drops_what_a_full_queue_has_no_place_for(lay):
    listener = lay.stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
    for _ in range(2):
        waiting = lay.stack.enter_context(socket.socket())
        waiting.setblocking(False)
        waiting.connect_ex(listener.getsockname())
    return lay.home.node(listener.getsockname()[1]), {"connect": 0.3}


@scenario("name", "does not resolve")
async def a_name_nobody_has(lay):
    return lay.home.node(22, host="no-such-node.invalid")


@scenario("name", "was not resolved")
async def a_name_server_that_is_silent(lay):
    leave = threading.Event()
    lay.stack.callback(leave.set)
    lay.monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: leave.wait(60) and [])
    return lay.home.node(22, host="ham1.example"), {"connect": 0.2}


@scenario("refused", "<host> is up")
async def nobody_listens(lay):
    return lay.home.node(free_port())


@scenario("no-ssh", "no ssh speaks")
async def sshd_is_stopped(lay):
    return lay.home.node(lay.stack.enter_context(black_hole())), {"login": 0.2}


@scenario("no-ssh", "did not finish the login")
async def sshd_stalls(lay):
    class Stalling(asyncssh.SSHServer):
        async def begin_auth(self, username):
            await asyncio.Event().wait()

    server = await lay.stack.enter_async_context(
        await asyncssh.create_server(Stalling, "127.0.0.1", 0, server_host_keys=[key("host")])
    )
    return lay.home.node(server.get_port()), {"login": 1}


@scenario("no-ssh", "closed the connection")
async def sshd_hangs_up(lay):
    return lay.home.node(await lay.stack.enter_async_context(talking(b"")))


@scenario("no-ssh", "speaks no ssh")
async def something_else_listens(lay):
    return lay.home.node(await lay.stack.enter_async_context(talking(b"220 mail\r\n" * 2000)))


@scenario("no-ssh", "no algorithm")
async def an_sshd_of_another_age(lay):
    lay.home.write_config("Ciphers aes256-ctr\n")
    server = await lay.stack.enter_async_context(
        await asyncssh.create_server(
            asyncssh.SSHServer, "127.0.0.1", 0, server_host_keys=[key("host")],
            encryption_algs=["aes128-ctr"],
        )
    )  # fmt: skip
    return lay.home.node(server.get_port())


@scenario("host-key-new", "is not known")
async def a_new_key_and_strict_keys(lay):
    lay.home.keys.policy = Policy.STRICT
    return await lay.node()


@scenario("host-key-new", "cannot be kept")
async def a_new_key_and_a_full_disk(lay):
    lay.home.own.mkdir(parents=True)
    return await lay.node()


@scenario("host-key-changed", "CHANGED")
async def another_key(lay):
    node = await lay.node(Faults(host_key="another"))
    lay.home.trust(node.port)
    return node


@scenario("host-key-changed", "revoked")
async def a_revoked_key(lay):
    lay.home.known.write_text("@revoked * " + key("host").export_public_key().decode())
    return await lay.node()


@scenario("host-key-changed", "cannot be believed")
async def a_certificate_of_somebody_else(lay):
    lay.home.known.write_text("@cert-authority * " + key("authority").export_public_key().decode())
    certificate = key("somebody else").generate_host_certificate(key("host"), "h", principals=())
    server = await lay.stack.enter_async_context(
        await asyncssh.create_server(
            asyncssh.SSHServer, "127.0.0.1", 0, server_host_keys=[(key("host"), certificate)]
        )
    )
    return lay.home.node(server.get_port())


@scenario("auth", "none of the keys")
async def nobody_is_let_in(lay):
    return await lay.node(Faults(lets_in=False))


@scenario("auth", "gave up")
async def too_many_keys(lay):
    class GivesUp(asyncssh.SSHServer):
        def connection_made(self, conn):
            self.conn = conn

        def begin_auth(self, username):
            self.conn.disconnect(asyncssh.DISC_PROTOCOL_ERROR, "Too many authentication failures")
            return True

    server = await lay.stack.enter_async_context(
        await asyncssh.create_server(GivesUp, "127.0.0.1", 0, server_host_keys=[key("host")])
    )
    return lay.home.node(server.get_port())


@scenario("auth", "correct `key`")
async def a_key_that_is_missing(lay):
    return await lay.node(key=lay.home.folder / "none")


@scenario("ssh-lost")
async def the_connection_breaks(lay):
    faults = Faults()
    daemon = lay.stack.enter_context(mute(lay.socket))
    daemon.setblocking(False)

    async def cut():
        held, _ = await asyncio.get_running_loop().sock_accept(daemon)
        faults.connections[0].abort()
        held.close()

    lay.stack.push_async_callback(asyncio.gather, asyncio.create_task(cut()))
    return await lay.node(faults)


@scenario("libvirtd-down", "there is no")
async def no_socket(lay):
    return await lay.node()


@scenario("libvirtd-down", "nothing listens")
async def a_socket_that_was_left(lay):
    with mute(lay.socket):
        pass
    return await lay.node()


@scenario("libvirt-permission", "may not use")
async def somebody_elses_socket(lay):
    lay.program("sh", f'echo "socket yes no yes {lay.socket}"; echo "user ruth"')
    return await lay.node(Faults(forwards=False))


@scenario("libvirt-permission", "lets this user do nothing")
async def polkit_refuses(lay):
    code = libvirt.VIR_ERR_AUTH_UNAVAILABLE
    await lay.stack.enter_async_context(refusing(lay.socket, code, "no polkit agent"))
    return await lay.node()


@scenario("no-forwarding", "does not forward to")
async def forwarding_is_forbidden(lay):
    lay.stack.enter_context(mute(lay.socket))
    return await lay.node(Faults(forwards=False))


@scenario("no-forwarding", "no shell")
async def nothing_is_allowed(lay):
    return await lay.node(Faults(forwards=False, has_shell=False))


@scenario("libvirtd-hung", "did not let us in")
async def libvirtd_says_nothing(lay):
    lay.stack.enter_context(mute(lay.socket))
    return await lay.node(), {"command": 0.3}


@scenario("libvirt-lost")
async def libvirtd_hangs_up(lay):
    async def hang_up(reader, writer):
        await reader.read(1)
        writer.close()

    await lay.stack.enter_async_context(await asyncio.start_unix_server(hang_up, lay.socket))
    return await lay.node()


@scenario("libvirt")
async def libvirtd_says_no(lay):
    code = libvirt.VIR_ERR_INTERNAL_ERROR
    await lay.stack.enter_async_context(refusing(lay.socket, code, "internal error: no"))
    return await lay.node()


@scenario("command")
async def virsh_hangs(lay):
    lay.without_libvirt_python()
    lay.program("virsh", "exec sleep 1000")
    return await lay.node(), {"command": 0.3}


@scenario("tool-missing")
async def neither_libvirt_python_nor_virsh(lay):
    lay.without_libvirt_python()
    return await lay.node()


@scenario("deadline")
async def no_turn_is_left(lay):
    return await lay.node(), {"fan_out": 0, "whole": 0.2}


@scenario("refused", "jump host <host>")
async def a_jump_host_that_is_not_there(lay):
    lay.home.write_config(
        f"Host jump\n  HostName 127.0.0.1\n  Port {free_port()}\nHost 127.0.0.1\n  ProxyJump jump\n"
    )
    return lay.home.node(22)


@scenario("refused", "the jump host cannot reach")
async def a_jump_host_that_is_refused(lay):
    port = await lay.stack.enter_async_context(serving())
    lay.home.write_config(
        f"Host jump\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {lay.home.key}\n"
        "Host 127.0.0.1\n  ProxyJump jump\n"
    )
    return lay.home.node(free_port())


def promised(reason, words):
    of_reason = [one for one in PROMISES if one.reason == reason]
    found = [one for one in of_reason if one.text.startswith(words)]
    if len(found) != 1:
        found = [one for one in of_reason if words in one.text]
    assert len(found) == 1, f"the table has {len(found)} lines for {reason}, {words}"
    return found[0]


@pytest.mark.parametrize(("reason", "words"), SCENARIOS)
async def test_the_operator_sees_the_line_of_the_table(lay, reason, words):
    from contextlib import AsyncExitStack

    async with AsyncExitStack() as lay.stack:
        made = await SCENARIOS[reason, words](lay)
        node, patience = made if isinstance(made, tuple) else (made, {})
        inventory = lay.home.inventory(node)
        patience = Patience(**({"connect": 10, "login": 10, "command": 20} | patience))
        async with Cluster(inventory, patience, lay.home.keys) as cluster:
            rows = await cluster.gather(lambda node: cluster.facts(node.name), [node])
    [line] = status_outcome(rows, inventory.nodes).views[0].lines
    shown = line.removeprefix("ham1   ")
    assert promised(reason, words).is_kept_by(shown), shown


def test_every_line_of_the_table_is_made_somewhere():
    made = [promised(*which) for which in [*SCENARIOS, *LAB_ALONE]]
    assert sorted(map(str, made)) == sorted(map(str, PROMISES))
