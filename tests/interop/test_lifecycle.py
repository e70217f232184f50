"""The daemon's life, by the real command: sockets, signals, drains, systemd's side of it."""

import contextlib
import json
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from daemon import daemon, nbdserve_argv, run_nbdserve
from nbdserve.protocol.constants import Command
from nbdserve.protocol.messages import Request
from nbdserve.protocol.requests import encode_request
from tools import ENVIRONMENT
from waiting import eventually, taken


def started(*words, **popen):
    """Start nbdserve with --print-uri and wait for its first URI."""
    process = subprocess.Popen(
        nbdserve_argv("--print-uri", *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, **popen,
    )  # fmt: skip
    uri = process.stdout.readline().strip()
    assert uri, process.stderr.read()
    return process, uri


def ended(process):
    """Wait for the end; return exit status and what was logged."""
    _, log = process.communicate(timeout=60)
    return process.returncode, log


def raw(path):
    """Connect and choose the default export by EXPORT_NAME: 10 bytes of answer, no zeroes."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(30)
    sock.connect(str(path))
    sock.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 1, 0))
    received = b""
    while len(received) < 18 + 10:
        received += sock.recv(28 - len(received))
    return sock


def send(sock, command, offset=0, length=0, cookie=1, payload=None):
    data = None if payload is None else memoryview(payload)
    sock.sendall(encode_request(Request(0, command, cookie, offset, length, data), extended=False))


def reply(sock):
    data = b""
    while len(data) < 16:
        more = sock.recv(16 - len(data))
        if not more:
            return None
        data += more
    return struct.unpack(">IIQ", data)[1:]


def test_a_stale_socket_is_replaced_and_the_restart_works(tmp_path):
    """Mistake (14)."""
    path = tmp_path / "s"
    process, _ = started("-U", path, "null", "1M")
    process.kill()
    ended(process)
    assert path.is_socket(), "kill -9 leaves it behind"
    process, uri = started("-U", path, "null", "1M")
    assert subprocess.run(["nbdinfo", "--size", uri], check=False).returncode == 0
    process.terminate()
    assert ended(process)[0] == 0
    assert not path.exists(), "and a proper end removes it"


def test_a_socket_that_answers_is_never_replaced(tmp_path):
    with daemon("null", "1M") as server:
        done = run_nbdserve("-U", server.socket, "null", "2M")
        assert done.returncode == 1
        assert "another server is there" in done.stderr
        told = subprocess.run(
            ["nbdinfo", "--size", server.uri()], capture_output=True, text=True, check=True
        )
        assert int(told.stdout) == 1 << 20


def test_a_file_that_is_no_socket_is_never_removed(tmp_path):
    path = tmp_path / "precious"
    path.write_text("data")
    done = run_nbdserve("-U", path, "null", "1M")
    assert done.returncode == 1
    assert "it is no socket" in done.stderr
    assert path.read_text() == "data"


def test_a_socket_of_another_server_is_not_removed_at_the_end(tmp_path):
    path = tmp_path / "s"
    process, _ = started("-U", path, "null", "1M")
    path.unlink()
    path.write_text("somebody else's")
    process.terminate()
    assert ended(process)[0] == 0
    assert path.exists()


def test_mode_and_owner_of_the_socket_are_as_asked(tmp_path):
    path = tmp_path / "s"
    process, _ = started("-U", path, "--unix-mode", "660", "--unix-owner", "65534:0", "null", "1M")
    found = path.stat()
    process.terminate()
    ended(process)
    assert stat.S_IMODE(found.st_mode) == 0o660
    assert (found.st_uid, found.st_gid) == (65534, 0)


def test_several_listeners_at_once(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with daemon("null", "1M", options=["-U", tmp_path / "two", "-i", "127.0.0.1", "-p", port]):
        for uri in (f"nbd+unix:///?socket={tmp_path}/two", f"nbd://127.0.0.1:{port}"):
            assert subprocess.run(["nbdinfo", "--size", uri], check=False).returncode == 0


def test_a_private_socket_is_printed_and_removed():
    process, uri = started("-U", "-", "null", "1M")
    folder = Path(uri.partition("socket=")[2]).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    process.terminate()
    ended(process)
    assert not folder.exists()


def test_the_default_is_loopback_only():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process, uri = started("-p", port, "null", "1M")
    try:
        assert uri.startswith(("nbd://127.0.0.1:", "nbd://[::1]:"))
        with (
            socket.create_connection(("127.0.0.1", port)) as one,
            socket.create_connection(("127.0.0.2", port), timeout=1),
        ):
            assert one.recv(8) == b"NBDMAGIC"
    except ConnectionRefusedError:
        pass  # 127.0.0.2 is not 127.0.0.1: nothing listens there
    finally:
        process.terminate()
        ended(process)


def test_sigterm_finishes_what_is_in_flight_and_answers_it():
    with (
        daemon("--layer", "delay:write=300ms", "memory", "1M") as server,
        raw(server.socket) as sock,
    ):
        send(sock, Command.WRITE, 0, 4, payload=b"kept")
        send(sock, Command.WRITE, 4, 4, cookie=2, payload=b"also")
        eventually(lambda: taken(sock))
        server.process.send_signal(signal.SIGTERM)
        assert sorted([reply(sock), reply(sock)]) == [(0, 1), (0, 2)]
        assert reply(sock) is None, "then a plain close, no ESHUTDOWN"
        sock.close()
        assert server.process.wait(30) == 0


def test_the_deadline_of_a_drain_is_kept():
    options = ["--drain-timeout", "200ms"]
    with daemon("--layer", "delay:read=1h", "null", "1M", options=options) as server:
        with raw(server.socket) as sock:
            send(sock, Command.READ, 0, 512)
            eventually(lambda: taken(sock))
            assert server.terminate() == 0
        assert "aborted with requests in flight" in server.log


def test_a_second_signal_ends_at_once():
    options = ["--drain-timeout", "1h"]
    with (
        daemon("--layer", "delay:read=1h", "null", "1M", options=options) as server,
        raw(server.socket) as sock,
    ):
        send(sock, Command.READ, 0, 512)
        eventually(lambda: taken(sock))
        server.process.terminate()
        eventually(lambda: "draining" in server.log)
        assert server.terminate() == 0


def test_a_handshake_that_stalls_is_dropped():
    """Mistake (13)."""
    with daemon("null", "1M", options=["--handshake-timeout", "200ms"]) as server:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(30)
            sock.connect(str(server.socket))
            assert len(sock.recv(18)) == 18
            assert sock.recv(1) == b""
        assert "handshake timed out" in server.log


def test_a_client_over_the_limit_waits_until_another_leaves():
    with daemon("null", "1M", options=["--max-connections", "1"]) as server:
        first = raw(server.socket)
        second = socket.socket(socket.AF_UNIX)
        second.connect(str(server.socket))
        second.settimeout(0.2)
        with pytest.raises(TimeoutError):
            second.recv(1)
        first.close()
        second.settimeout(30)
        assert second.recv(8) == b"NBDMAGIC"
        second.close()


def test_a_client_that_vanishes_harms_nobody():
    with daemon("--layer", "delay:read=50ms", "null", "1M") as server:
        for _ in range(20):
            sock = raw(server.socket)
            for cookie in range(50):
                send(sock, Command.READ, 0, 4096, cookie=cookie)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        assert subprocess.run(["nbdinfo", "--size", server.uri()], check=False).returncode == 0
        assert "Traceback" not in server.log


@pytest.mark.parametrize("noise", [b"", b"\0" * 100, b"GET / HTTP/1.1\r\n\r\n", os.urandom(5000)])
def test_a_client_that_speaks_something_else_is_dropped(noise):
    with daemon("null", "1M") as server:
        with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError):
            sock.connect(str(server.socket))
            sock.sendall(noise)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(4096):
                pass
        assert subprocess.run(["nbdinfo", "--size", server.uri()], check=False).returncode == 0


def test_the_pid_file_is_there_while_it_serves(tmp_path):
    path = tmp_path / "pid"
    process, _ = started("-P", path, "-U", tmp_path / "s", "null", "1M")
    assert int(path.read_text()) == process.pid
    process.terminate()
    ended(process)
    assert not path.exists()


def test_exit_with_parent_ends_with_it(tmp_path):
    argv = nbdserve_argv("--exit-with-parent", "--print-uri", "-U", tmp_path / "s", "null", "1M")
    code = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen({argv!r}, stdout=subprocess.PIPE)\n"
        "child.stdout.readline(); print(child.pid, flush=True)\n"
    )
    parent = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(parent.stdout) > 0
    eventually(lambda: not (tmp_path / "s").exists())


def test_run_sees_where_the_export_is(tmp_path):
    command = 'echo "$uri|$unixsocket|$nbd|$port|$exportname"; nbdinfo --size "$uri"'
    done = run_nbdserve("-e", "a disk", "null", "1M", "--run", command)
    told, size = done.stdout.splitlines()
    uri, unixsocket, nbd, port, name = told.split("|")
    assert uri == f"nbd+unix:///a%20disk?socket={unixsocket}"
    assert nbd == f"nbd:unix:{unixsocket}:exportname=a disk"
    assert (port, name) == ("", "a disk")
    assert int(size) == 1 << 20
    assert not Path(unixsocket).exists()


def test_sigterm_ends_the_captive_command(tmp_path):
    pid = tmp_path / "pid"
    process = subprocess.Popen(
        nbdserve_argv("null", "1M", "--run", f"echo $$ > {pid}.new; mv {pid}.new {pid}; sleep 1000")
    )
    eventually(pid.exists)
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_a_captive_command_that_will_not_end_is_killed_when_asked_again(tmp_path):
    pid = tmp_path / "pid"
    command = f"trap '' TERM; echo $$ > {pid}.new; mv {pid}.new {pid}; while :; do sleep 0.1; done"
    process = subprocess.Popen(
        nbdserve_argv("-U", tmp_path / "s", "null", "1M", "--run", command),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    eventually(pid.exists)
    process.terminate()
    while "asked to stop" not in process.stderr.readline():
        assert process.poll() is None
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM
    process.stderr.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_run_sees_an_ipv6_address_in_brackets():
    done = run_nbdserve("-i", "::1", "-p", "0", "null", "1M", "--run", 'echo "$uri|$nbd|$port"')
    uri, nbd, port = done.stdout.strip().split("|")
    assert uri == nbd == f"nbd://[::1]:{port}"


def test_sockets_passed_by_systemd_are_used_and_not_handed_on(tmp_path):
    """LISTEN_FDS, as sd_listen_fds(3) has it; the manager's own file is left alone."""
    path = tmp_path / "s"
    argv = nbdserve_argv("null", "1M", "--run", "nbdinfo --size $uri; echo [$LISTEN_FDS] $nbd")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        fd = listening.fileno()
        code = (
            "import os, sys\n"
            f"os.dup2({fd}, 3); os.set_inheritable(3, True)\n"
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')\n"
            f"argv = {argv!r}\n"
            "os.execv(argv[0], argv)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False,
            pass_fds=[fd],
        )  # fmt: skip
    assert done.stdout == f"1048576\n[] nbd:unix:{path}\n", done
    assert path.exists()


def test_the_service_manager_hears_ready_watchdog_and_stopping(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(30)
        environment = {
            **os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "100000",
        }  # fmt: skip
        process, _ = started("-U", tmp_path / "s", "null", "1M", env=environment)
        assert "READY=1" in notify.recv(4096).decode()
        assert notify.recv(4096) == b"WATCHDOG=1"
        assert notify.recv(4096) == b"WATCHDOG=1"
        process.terminate()
        heard = b""
        while b"STOPPING=1" not in heard:
            heard = notify.recv(4096)
        ended(process)


def test_json_logs_are_one_object_a_line(tmp_path):
    done = run_nbdserve("--log-format", "json", "null", "1M", "--run", "nbdinfo --size $uri")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {"time", "level", "logger", "message"} <= set(lines[0])
    assert any("connection ready" in line["message"] for line in lines)


def test_an_export_that_cannot_be_opened_keeps_no_other_from_being_served(tmp_path, image):
    config = tmp_path / "nbdserve.toml"
    late = tmp_path / "late.img"
    config.write_text(
        f"""
        [[export]]
        name = "good"
        source = {{ type = "file", path = "{image}" }}
        [[export]]
        name = "late"
        source = {{ type = "file", path = "{late}" }}
        """
    )
    with daemon(options=["--config", config]) as server:
        size = ["nbdinfo", "--size"]
        assert subprocess.run([*size, server.uri("good")], check=False).returncode == 0
        assert subprocess.run([*size, server.uri("late")], check=False).returncode == 1
        late.write_bytes(bytes(4096))
        assert subprocess.run([*size, server.uri("late")], check=False).returncode == 0
        assert "export cannot be opened export='late'" in server.log


def test_a_slow_export_does_not_stall_the_others(tmp_path):
    """Mistake (18): one export's source hangs, each kind of request of another goes on."""
    config = tmp_path / "nbdserve.toml"
    config.write_text(
        """
        [server]
        drain-timeout = "0s"
        [[export]]
        name = ""
        layers = [{ type = "delay", read = "1h" }]
        source = { type = "null", size = "1M" }
        [[export]]
        name = "quick"
        source = { type = "memory", size = "1M" }
        """
    )
    with daemon(options=["--config", config]) as server, raw(server.socket) as slow:
        for cookie in range(200):  # all are under way at once: a connection has 256
            send(slow, Command.READ, 0, 512, cookie)
        eventually(lambda: taken(slow))
        script = (
            "h.pwrite(b'x' * 512, 0); h.flush(); h.zero(512, 512)\n"
            "assert h.pread(1024, 0) == b'x' * 512 + bytes(512)\n"
        )
        argv = ["nbdsh", "--base-allocation", "-u", server.uri("quick"), "-c", script]
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, timeout=60, env=ENVIRONMENT
        )
        assert done.returncode == 0, done.stderr
        slow.setblocking(False)
        with pytest.raises(BlockingIOError):
            slow.recv(1)  # its own requests still wait
