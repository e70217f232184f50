"""Exclusive exports: two real qemu that migrate, a restart amid writes, and who is dropped."""

import json
import os
import socket
import subprocess

import pytest

from daemon import daemon
from nbdctl_command import run_nbdctl
from qemu import nbd_disk, qemu
from tools import ENVIRONMENT
from waiting import eventually

NAME = "guest/web1"
HOST = "127.0.0.1"


@pytest.fixture
def port():
    with socket.create_server((HOST, 0)) as probe:
        return probe.getsockname()[1]


@pytest.fixture
def options(tmp_path, port):
    """A daemon as minicloud has it: TCP for the nodes, exports kept."""
    return ["--control", tmp_path / "c", "--state-dir", tmp_path / "state", "--overlay-dir",
            tmp_path / "overlays", "-p", port, "-i", HOST]  # fmt: skip


@pytest.fixture
def control(tmp_path):
    """Run `nbdctl COMMAND PART --control … WORDS`, which has to succeed."""

    def control(command, part, *words):
        done = run_nbdctl(command, part, "--control", tmp_path / "c", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return control


@pytest.fixture
def lease(control):
    """Tell who has the export."""

    def lease():
        (export,) = json.loads(control("export", "list", "--json"))["exports"]
        return export["lease"]

    return lease


@pytest.fixture
def guest(tmp_path, port):
    """Run a qemu on the export: `with guest(name, *words) as …`."""

    def guest(name, *words, reconnect=0):
        return qemu(tmp_path, name, nbd_disk(HOST, port, NAME, reconnect=reconnect), *words)

    return guest


def waiting(tmp_path):
    """What makes a qemu wait for a migration."""
    return "-incoming", f"unix:{tmp_path / 'migration'}"


def switched_over(source, tmp_path, writes):
    """Migrate, with writes on the source all the while, up to where it has stopped for good."""
    source.ask(
        "migrate-set-capabilities",
        capabilities=[{"capability": "pause-before-switchover", "state": True}],
    )
    source.ask("migrate-set-parameters", **{"max-bandwidth": 4096})  # it comes to no end so
    source.migrate_to(tmp_path / "migration")
    eventually(lambda: source.migration == "active")
    for count in range(100):
        writes(count)
    assert source.migration == "active"
    source.ask("migrate-set-parameters", **{"max-bandwidth": 1 << 30})
    while source.migration == "active":
        count += 1
        writes(count)
    assert source.migration == "pre-switchover"
    source.ask("migrate-continue", state="pre-switchover")
    eventually(lambda: source.migration == "completed")


def test_a_guest_that_writes_all_the_while_migrates_without_an_error(
    tmp_path, options, control, lease, guest
):
    with daemon(options=options):
        control("export", "add", "-x", NAME, "--layer", "cow", "memory", "64M")
        with guest("source") as source:
            written = {}

            def write(count):
                at, pattern = count * 7 % 100 * 64, 1 + count % 200
                told = source.io(f"write -P {pattern} {at}k 64k")
                assert told.startswith("wrote 65536/65536"), told
                written[at] = pattern

            control("export", "handover", NAME)
            with guest("target", *waiting(tmp_path)) as target:
                found = lease()
                assert found["handover"]["other"] is not None
                assert not found["handover"]["passed"]
                switched_over(source, tmp_path, write)
                eventually(lambda: target.ask("query-status")["status"] == "running")
                for at, pattern in written.items():
                    told = target.io(f"read -P {pattern} {at}k 64k")
                    assert "failed" not in told, (at, told)
                assert target.io("write -P 250 0 64k").startswith("wrote")
                passed = lease()
                assert passed["holder"] == found["handover"]["other"]
                assert passed["handover"]["passed"]
                source.ask("cont")  # what nobody must do, and an operator may
                assert source.io("write -P 251 0 64k") == "write failed: Operation not permitted"
                assert "failed" not in target.io("read -P 250 0 64k")
                assert not {"BLOCK_IO_ERROR", "STOP"} & set(target.events)
                control("export", "handover", NAME, "--end")
                eventually(lambda: lease()["handover"] is None)
                assert target.io("write -P 252 0 64k").startswith("wrote")


def test_without_a_handover_the_second_qemu_is_refused_with_the_text(
    tmp_path, options, control, guest
):
    with daemon(options=options):
        control("export", "add", "-x", NAME, "memory", "64M")
        with guest("source") as source:
            with (
                pytest.raises(RuntimeError, match=r'"guest/web1" is in use by 127\.0\.0\.1:'),
                guest("target", *waiting(tmp_path)),
            ):
                pass
            assert source.io("write -P 1 0 64k").startswith("wrote")


def test_a_migration_that_is_given_up_leaves_the_source_as_it_was(
    tmp_path, options, control, lease, guest
):
    with daemon(options=options):
        control("export", "add", "-x", NAME, "memory", "64M")
        with guest("source") as source:
            control("export", "handover", NAME, "--for", "1h")
            with guest("target", *waiting(tmp_path)):
                source.ask("migrate-set-parameters", **{"max-bandwidth": 4096})  # no end so
                source.migrate_to(tmp_path / "migration")
                source.ask("migrate_cancel")
                eventually(lambda: source.migration == "cancelled")
                told = control("export", "handover", NAME, "--end")
                assert "is dropped" in told
            assert source.io("write -P 1 0 64k").startswith("wrote")
            eventually(lambda: lease()["handover"] is None)
            assert not {"BLOCK_IO_ERROR"} & set(source.events)


def test_the_clients_of_a_fenced_node_are_dropped(options, control, lease, guest):
    with daemon(options=options):
        control("export", "add", "-x", NAME, "memory", "64M")
        with guest("fenced") as fenced:
            assert control("export", "disconnect", NAME) == f"1 client of export {NAME!r} dropped\n"
            assert lease()["holder"] is None
            with guest("restarted") as restarted:
                assert restarted.io("write -P 1 0 64k").startswith("wrote")
                assert "failed" in fenced.io("write -P 2 0 64k")
                assert "failed" not in restarted.io("read -P 1 0 64k")


@pytest.mark.parametrize(("signal", "flag"), [("term", ""), ("kill", "-f ")])
def test_a_restart_amid_writes_is_no_error_for_a_client_that_reconnects(
    tmp_path, options, control, lease, port, signal, flag
):
    """SIGTERM as for an update; and SIGKILL, which loses no write that was acknowledged as FUA."""
    (tmp_path / "golden.img").write_bytes(bytes(16 << 20))
    overlay = tmp_path / "overlays" / "web1.cow"
    chain = ["--layer", "delay:write=300ms", "--layer", f"cow:path={overlay}", "--layer",
             "readonly", "file", tmp_path / "golden.img"]  # fmt: skip
    image = (
        f"driver=nbd,server.type=inet,server.host={HOST},server.port={port},export={NAME},"
        "reconnect-delay=60"
    )
    writes = [f"aio_write {flag}-P {1 + n} {n * 32}k 32k" for n in range(64)]
    reads = [f"read -P {1 + n} {n * 32}k 32k" for n in range(64)]
    with daemon(options=options) as first:
        control("export", "add", "-x", NAME, *chain)
        client = QemuIo(image)
        client.say(*writes[:16], "aio_flush", "flush", *writes[16:])
        if signal == "term":
            assert first.terminate() == 0
            assert "draining clients=1" in first.log
        else:
            first.kill()
        assert "error=" not in first.log
    with daemon(options=options):
        client.say("aio_flush", "flush", *reads)
        told = client.quit()
        assert told.count("read 32768/32768") == len(reads)
        assert "failed" not in told.lower()
        assert "error" not in told.lower()
        eventually(lambda: lease()["holder"] is None)


class QemuIo:
    """A qemu-io that is told one command after the other; it takes no two at once from a pipe."""

    _PROMPT = b"qemu-io> "

    def __init__(self, image):
        self._process = subprocess.Popen(
            ["qemu-io", "--image-opts", image], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._told = b""
        self._listen()

    def say(self, *commands):
        """Have it begin these commands."""
        for command in commands:
            self._process.stdin.write(command.encode() + b"\n")
            self._process.stdin.flush()
            self._listen()

    def quit(self):
        """Have it end; return all that it told."""
        rest, _ = self._process.communicate(b"quit\n", timeout=60)
        assert self._process.returncode == 0
        return (self._told + rest).decode()

    def _listen(self):
        while not self._told.endswith(self._PROMPT):
            more = os.read(self._process.stdout.fileno(), 65536)
            assert more, self._told
            self._told += more
        self._told += b"\n"


def test_an_export_its_exclusiveness_and_what_was_flushed_outlive_a_kill(
    tmp_path, options, control, port
):
    (tmp_path / "golden.img").write_bytes(bytes(1 << 20))
    overlay = tmp_path / "overlays" / "web1.cow"
    uri = f"nbd://{HOST}:{port}/{NAME}"
    with daemon(options=options) as server:
        control("export", "add", "-x", NAME, "--layer", f"cow:path={overlay}", "file",
                tmp_path / "golden.img")  # fmt: skip
        code = f"h.connect_uri({uri!r}); h.pwrite(b'kept' * 1024, 8192); h.flush()"
        subprocess.run(["nbdsh", "-c", code], env=ENVIRONMENT, check=True)
        server.kill()
    with daemon(options=options):
        code = (
            f"h.connect_uri({uri!r}); assert h.pread(4096, 8192) == b'kept' * 1024\n"
            "assert not h.can_multi_conn()"
        )
        subprocess.run(["nbdsh", "-c", code], env=ENVIRONMENT, check=True)
