"""libvirt that is not there, not allowed, silent or gone; a real one is in tests/interop."""

import asyncio
import contextlib
import gc
import socket
import sys
import threading

import libvirt
import pytest

from minicloud.errors import NodeError, Reason
from minicloud.hypervisor import binding
from minicloud.hypervisor.driver import Hypervisor
from minicloud.hypervisor.link import End, Link
from waiting import eventually


@pytest.fixture
async def hypervisor(session):
    hypervisor = Hypervisor(session)
    yield hypervisor
    await hypervisor.close()


@contextlib.contextmanager
def listening(path):
    """A daemon that takes connections and says nothing."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        yield sock


async def failure(hypervisor, **options):
    with pytest.raises(NodeError) as caught:
        await hypervisor.call(lambda connection: connection.getHostname(), **options)
    return caught.value


async def test_no_socket_is_a_libvirtd_that_is_down(hypervisor, node):
    error = await failure(hypervisor)
    assert error.reason is Reason.NO_LIBVIRTD
    assert f"there is no {node.libvirt_socket}" in error.message
    assert "systemctl" in error.remedy


async def test_a_socket_nobody_listens_at_is_a_libvirtd_that_is_down(hypervisor, node):
    with listening(node.libvirt_socket):
        pass
    error = await failure(hypervisor)
    assert error.reason is Reason.NO_LIBVIRTD
    assert f"nothing listens at {node.libvirt_socket}" in error.message


async def test_a_daemon_that_says_nothing_is_hung_and_its_thread_is_freed(hypervisor, node):
    with listening(node.libvirt_socket):
        error = await failure(hypervisor, deadline=0.3)
        assert error.reason is Reason.LIBVIRT_HUNG
        assert "did not let us in within 0.3 s" in error.message
        await threads_gone()


async def threads_gone():
    for thread in threading.enumerate():
        if thread.name.startswith("libvirt "):
            await asyncio.to_thread(thread.join, 10)
            assert not thread.is_alive()


async def test_a_call_that_is_cancelled_frees_its_thread(hypervisor, node):
    with listening(node.libvirt_socket) as daemon:
        waiting = asyncio.create_task(failure(hypervisor, deadline=None))
        daemon.setblocking(False)
        held, _ = await asyncio.get_running_loop().sock_accept(daemon)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await threads_gone()
        held.close()


async def test_a_daemon_that_hangs_up_is_lost(hypervisor, node):
    async def hang_up(reader, writer):
        await reader.read(1)
        writer.close()

    async with await asyncio.start_unix_server(hang_up, node.libvirt_socket):
        error = await failure(hypervisor)
    assert error.reason is Reason.LIBVIRT_LOST
    assert "\n" not in error.message


async def test_a_connection_that_breaks_while_libvirt_is_asked(hypervisor, node, faults):
    with listening(node.libvirt_socket) as daemon:
        waiting = asyncio.create_task(failure(hypervisor))
        daemon.setblocking(False)
        held, _ = await asyncio.get_running_loop().sock_accept(daemon)
        faults.connections[0].abort()
        error = await waiting
        held.close()
    assert error.reason is Reason.SSH_LOST


async def test_forbidden_forwarding_without_a_helper_is_told(hypervisor, node, faults):
    faults.forwards = False
    with listening(node.libvirt_socket):
        error = await failure(hypervisor)
    assert error.reason is Reason.NO_FORWARDING
    assert "AllowStreamLocalForwarding" in error.remedy


async def test_forbidden_forwarding_and_no_shell_is_told(hypervisor, node, faults):
    faults.forwards = faults.has_shell = False
    error = await failure(hypervisor)
    assert error.reason is Reason.NO_FORWARDING
    assert node.libvirt_socket in error.message


async def test_where_forwarding_is_forbidden_a_helper_is_spoken_to(hypervisor, node, faults):
    faults.forwards = False
    (home := node.key.parent / "bin" / "socat").write_text("#!/bin/sh\necho nonsense >&2; cat\n")
    home.chmod(0o755)
    with listening(node.libvirt_socket):
        error = await failure(hypervisor, deadline=2)
    assert f"UNIX-CONNECT:{node.libvirt_socket}" in faults.commands[-1]
    # it gives back what it was told, which is no answer libvirt understands
    assert error.reason in {Reason.LIBVIRT_LOST, Reason.LIBVIRT}


async def test_without_libvirt_python_the_command_that_installs_it_is_told(hypervisor, monkeypatch):
    monkeypatch.setitem(sys.modules, "libvirt", None)
    binding.libvirt_module.cache_clear()
    error = await failure(hypervisor)
    binding.libvirt_module.cache_clear()
    assert error.reason is Reason.TOOL
    assert error.remedy.startswith("pip install ")


async def test_nothing_is_left_in_the_temporary_folder(hypervisor, node, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    await failure(hypervisor)
    await threads_gone()
    gc.collect()
    assert list((tmp_path / "t").iterdir()) == []


def test_libvirts_own_printing_is_silenced(capfd):
    binding.libvirt_module()
    with pytest.raises(libvirt.libvirtError):
        libvirt.open("nosuch:///driver")
    assert capfd.readouterr() == ("", "")


async def test_calls_that_waited_for_a_thread_when_the_link_was_cut_are_told(session, node):
    async def greet(reader, writer):
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(greet, node.libvirt_socket):
        link = Link((End(session, lambda: session.open_unix(node.libvirt_socket), ""),))
        begun, leave = threading.Barrier(9), threading.Event()

        def keep_busy(_):
            begun.wait(30)
            leave.wait(30)

        link._connections = [object()]
        busy = [asyncio.create_task(link.call(keep_busy, deadline=None)) for _ in range(8)]
        await asyncio.to_thread(begun.wait, 30)
        late = asyncio.create_task(link.call(lambda _: 1, deadline=None))
        await asyncio.sleep(0)
        link._connections = []
        leave.set()
        with pytest.raises(NodeError) as caught:
            await late
        assert caught.value.reason is Reason.LIBVIRT_LOST
        await asyncio.gather(*busy)
        link.cut()


async def test_a_call_with_two_nodes_is_hung_where_one_of_them_is(session, node):
    """The other answers; what it costs is its time, and no thread."""
    with listening(node.libvirt_socket):
        there = Hypervisor(session)
        here = Hypervisor(session)
        with pytest.raises(NodeError) as caught:
            await here.call_with(there, lambda *_: None, opening=0.3)
        assert caught.value.reason is Reason.LIBVIRT_HUNG
        await threads_gone()


async def test_a_connection_is_not_closed_under_a_call_that_uses_it(session, node):
    class Connection:
        is_used = False

        def close(self):
            closed.append(self.is_used)

    closed: list[bool] = []
    begun, leave = threading.Event(), threading.Event()

    def use(connection):
        connection.is_used = True
        begun.set()
        leave.wait(30)
        connection.is_used = False

    link = Link((End(session, lambda: session.open_unix(node.libvirt_socket), ""),))
    link._connections = [Connection()]
    using = asyncio.create_task(link.call(use, deadline=None))
    await asyncio.to_thread(begun.wait, 30)
    link.cut()
    eventually(lambda: closed or link._change._waiters)
    assert closed == []
    leave.set()
    await using
    await threads_gone()
    assert closed == [False]
