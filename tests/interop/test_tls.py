"""TLS with what others speak it with: libnbd's tools, qemu's, fio; and with what nobody should."""

import asyncio
import os
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys

import pytest

from certificates import Authority
from daemon import daemon, nbdserve_argv, run_nbdserve
from nbdserve.protocol.constants import Command, Option, OptionReply
from nbdserve.protocol.messages import Request
from nbdserve.protocol.requests import encode_request
from nbdserve.testing.client import open_unix
from nbdserve.tlssocket import TlsSocket
from tools import ENVIRONMENT
from waiting import eventually

_REPLY = struct.Struct(">QIII")
_TCP = ("--bind", "127.0.0.1", "--port", "0", "--print-uri")
_PLAIN = struct.pack(">I", 3)  # the client's flags


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pki")
    authority = Authority(folder / "ca")
    authority.issue(folder / "server", "server")
    authority.issue(folder / "client", "client")
    Authority(folder / "stranger").issue(folder / "strange", "client")
    return folder


@pytest.fixture
def required(pki):
    """Options of a server that lets in nobody without a certificate."""
    return ["--tls", "require", "--tls-certificates", pki / "server", "--tls-verify-peer"]


@pytest.fixture(params=["uvloop", "asyncio"])
def loop(request, tmp_path):
    """What to add to the environment so that the daemon runs on this loop."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
        return {}
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "uvloop.py").write_text("raise ImportError('as where it is not installed')\n")
    path = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": f"{hidden}:{path}" if path else str(hidden)}


def uri(server, folder, export=""):
    """Where libnbd finds an export over TLS: on the Unix socket, by the name localhost."""
    return (
        f"nbds+unix:///{export}?socket={server.socket}&tls-certificates={folder}"
        "&tls-hostname=localhost"
    )


def tcp_uri(server, folder):
    """The same on TCP, where libnbd checks whose certificate the server has."""
    printed = re.search(r"^nbds://127.0.0.1:(\d+)$", server.log, re.MULTILINE)
    return f"nbds://localhost:{printed[1]}/?tls-certificates={folder}"


def run(*argv, check=True, **options):
    return subprocess.run(
        [str(word) for word in argv], check=check, capture_output=True, timeout=120,
        env=ENVIRONMENT, **options,
    )  # fmt: skip


def qemu_img(*argv):
    return run("qemu-img", *argv)


def secrets(pki):
    return "--object", f"tls-creds-x509,id=tls0,endpoint=client,dir={pki / 'client'}"


def image_opts(server):
    return (
        f"driver=nbd,server.type=unix,server.path={server.socket},tls-creds=tls0,"
        "tls-hostname=localhost"
    )


# Clients as they should be


def test_a_large_image_is_copied_whole_both_ways(pki, required, loop, tmp_path):
    """Where a plain connection would use sendfile, and one record is no request's end."""
    data = b"".join(at.to_bytes(8, "big") for at in range(0, 48 << 20, 8))
    image, back = tmp_path / "disk.img", tmp_path / "back.img"
    image.write_bytes(bytes(len(data)))
    back.write_bytes(data)
    with daemon("file", image, options=required, env=loop) as server:
        where = uri(server, pki / "client")
        for size in ("1048576", "33554432"):
            run("nbdcopy", f"--request-size={size}", back, where)
            assert image.read_bytes() == data
            copied = run("nbdcopy", f"--request-size={size}", where, "-")
            assert copied.stdout == data
        assert server.terminate() == 0
        assert "TLS started peer=unix" in server.log
        assert "vanished" not in server.log


def test_fio_verifies_what_it_wrote(pki, loop, tmp_path):
    """As a client without a certificate: libnbd lets no URI of fio's name files."""
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(32 << 20)
    options = ["--tls=require", "--tls-certificates", pki / "server"]
    with daemon("--layer", "cow", "file", image, options=options, env=loop) as server:
        run("fio", "--name=verify", "--ioengine=nbd", f"--uri=nbds+unix:///?socket={server.socket}",
            "--size=32M", "--rw=randwrite", "--bsrange=512-256k", "--iodepth=32",
            "--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--io_size=32M",
            cwd=tmp_path)  # fmt: skip


def test_qemu_converts_there_and_back(pki, required, image, pattern, tmp_path):
    copy = tmp_path / "copy.img"
    with daemon("file", image, options=required) as server:
        qemu_img("convert", *secrets(pki), "--image-opts", image_opts(server), "-O", "raw", copy)
        assert copy.read_bytes() == pattern
        copy.write_bytes(pattern[::-1])
        qemu_img("convert", *secrets(pki), "-n", "--target-image-opts", "-f", "raw", copy,
                 image_opts(server))  # fmt: skip
    assert image.read_bytes() == pattern[::-1]


def test_several_workers_and_tcp(pki, required, image):
    with daemon(
        "-r", "file", image,
        options=[*required, "--workers", "2", *_TCP],
    ) as server:  # fmt: skip
        told = run("nbdinfo", tcp_uri(server, pki / "client")).stdout.decode()
        assert told.startswith("protocol: newstyle-fixed with TLS")
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: server.log.count("TLS credentials read anew") == 2)


def test_one_client_on_stdin(pki, required, image):
    command = [str(word) for word in nbdserve_argv(*required, "--single", "file", image)]
    code = (
        f"h.set_tls(nbd.TLS_REQUIRE); h.set_tls_certificates({str(pki / 'client')!r}); "
        f"h.set_tls_verify_peer(False); h.connect_command({command!r}); print(h.get_size())"
    )
    assert run("nbdsh", "-c", code).stdout == b"%d\n" % image.stat().st_size


def test_who_may_speak_tls_need_not(pki, image):
    with daemon("file", image, options=["--tls-certificates", pki / "server"]) as server:
        assert b"without TLS" in run("nbdinfo", server.uri()).stdout
        assert b"with TLS" in run("nbdinfo", uri(server, pki / "client")).stdout


def test_a_captive_command_is_told_that_only_tls_is_spoken(required):
    options = [*required, "--bind", "127.0.0.1", "--port", "0"]
    done = run_nbdserve(*options, "null", "1M", "--run", 'echo "$uri|$nbd|$port"')
    uri, nbd, port = done.stdout.strip().split("|")
    assert uri == nbd == f"nbds://127.0.0.1:{port}", done.stderr


def test_exclusive_exports_are_handed_over_as_ever(pki, required, image, tmp_path):
    config = tmp_path / "nbdserve.toml"
    config.write_text(
        f'[server]\ntls = "require"\ntls-certificates = "{pki / "server"}"\n'
        f'[[export]]\nexclusive = true\nsource = {{ type = "file", path = "{image}" }}\n'
    )
    with daemon(options=["--config", config]) as server:
        for _ in range(2):
            assert b"with TLS" in run("nbdinfo", uri(server, pki / "client")).stdout


def test_new_certificates_are_read_upon_sighup(pki, image, tmp_path):
    folder = shutil.copytree(pki / "server", tmp_path / "server")
    options = ["--tls=require", "--tls-certificates", folder, *_TCP]
    with daemon("file", image, options=options) as server:
        (folder / "server-key.pem").write_text("rubbish")
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: "not read anew, those in use stay: TLS: " in server.log)
        run("nbdinfo", tcp_uri(server, pki / "client"))
        other = Authority(tmp_path / "other")
        other.issue(folder, "server")
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: "TLS credentials read anew" in server.log)
        assert run("nbdinfo", tcp_uri(server, pki / "client"), check=False).returncode != 0
        run("nbdinfo", tcp_uri(server, tmp_path / "other"))


def test_a_mode_there_is_not_names_those_there_are(image):
    done = run_nbdserve("--tls=bogus", "file", image)
    assert done.returncode == 2
    assert "choose from 'off', 'on', 'require'" in done.stderr


def test_a_key_with_a_passphrase_is_told_and_never_asked_for(pki, image, tmp_path):
    folder = shutil.copytree(pki / "server", tmp_path / "encrypted")
    key = folder / "server-key.pem"
    encrypt = ("certtool", "--to-p8", "--pkcs-cipher", "aes-256", "--password", "secret")
    run(*encrypt, "--load-privkey", key, "--outfile", folder / "new")
    (folder / "new").replace(key)
    assert "ENCRYPTED" in key.read_text()
    done = run_nbdserve("--tls=require", "--tls-certificates", folder, "file", image)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert f"{key}: it is encrypted; store it without a passphrase" in done.stderr


def test_keys_that_were_shared_before(image, tmp_path):
    """Python's ssl has them from 3.13 on; before, there is one clear line."""
    keys = tmp_path / "keys.psk"
    run("psktool", "-u", "alice", "-p", keys)
    options = ["--tls=require", "--tls-psk", keys]
    if sys.version_info < (3, 13):
        done = run_nbdserve(*options, "file", image)
        assert done.returncode == 2
        assert "needs an ssl module of Python 3.13 or newer" in done.stderr
        return
    other = tmp_path / "other.psk"
    run("psktool", "-u", "bob", "-p", other)
    with daemon("file", image, options=options) as server:
        query = f"socket={server.socket}&tls-psk-file="
        told = run("nbdinfo", f"nbds+unix://alice@/?{query}{keys}").stdout
        assert b"with TLS" in told
        for name, file in (("bob", other), ("alice", other)):
            assert run("nbdinfo", f"nbds+unix://{name}@/?{query}{file}", check=False).returncode
        folder = tmp_path / "qemu"
        folder.mkdir()
        shutil.copy(keys, folder / "keys.psk")
        qemu_img(
            "compare", "--object", f"tls-creds-psk,id=tls0,endpoint=client,dir={folder},"
            "username=alice", "--image-opts",
            f"driver=nbd,server.type=unix,server.path={server.socket},tls-creds=tls0",
            f"driver=raw,file.driver=file,file.filename={image}",
        )  # fmt: skip


async def test_requests_behind_a_payload_are_served_though_nothing_follows(pki, image):
    """They are decrypted with its last bytes, and no event tells that they are there."""
    context = ssl.create_default_context(cafile=pki / "ca/ca-cert.pem")
    options = ["--tls-certificates", pki / "server"]
    reads = [Request(0, Command.READ, number, 0, 512) for number in range(20)]
    payload = bytes(150_000)  # more than the server receives at once
    write = Request(0, Command.WRITE, 99, 0, len(payload), memoryview(payload))
    with daemon("file", image, options=options) as server:
        loop, sock = asyncio.get_running_loop(), await open_unix(server.socket)
        with sock:
            await loop.sock_sendall(sock, _PLAIN + option(Option.STARTTLS))
            acknowledged = 18 + _REPLY.size
            while acknowledged:
                acknowledged -= len(await loop.sock_recv(sock, acknowledged))
            tls = await TlsSocket.handshake(
                sock, context, server_side=False, server_hostname="localhost"
            )
            await tls.sendall(option(Option.EXPORT_NAME))
            chosen = b""
            while len(chosen) < 10:
                chosen += await tls.recv(10 - len(chosen))
            sent = [encode_request(one, extended=False) for one in (write, *reads)]
            await tls.sendall(b"".join(sent))
            answered = 16 + len(reads) * (16 + 512)
            async with asyncio.timeout(30):
                while answered:
                    answered -= len(data := await tls.recv(answered))
                    assert data


# Clients as they should not be


class Wire:
    """A client that sends what it is told to."""

    def __init__(self, server):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(30)
        self.sock.connect(str(server.socket))
        assert len(self.take(18)) == 18

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def take(self, count):
        data = b""
        while len(data) < count and (more := self.sock.recv(count - len(data))):
            data += more
        return data

    def reply(self):
        """The option and type of the next reply; None if the server closed."""
        head = self.take(_REPLY.size)
        if not head:
            return None
        _, option, reply, length = _REPLY.unpack(head)
        self.take(length)
        return option, reply

    def start_tls(self, pki):
        context = ssl.create_default_context(cafile=pki / "client/ca-cert.pem")
        context.load_cert_chain(pki / "client/client-cert.pem", pki / "client/client-key.pem")
        self.sock = context.wrap_socket(self.sock, server_hostname="localhost")


def option(number, data=b""):
    return b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data


def test_what_came_in_the_clear_is_not_taken_for_what_comes_by_tls(pki, required, image):
    """An attacker puts options after the client's STARTTLS: CVE-2021-3716 and its like."""
    injected = option(Option.STRUCTURED_REPLY) + option(Option.LIST)
    with daemon("file", image, options=required) as server, Wire(server) as wire:
        wire.sock.send(_PLAIN + option(Option.STARTTLS) + injected)
        assert wire.reply() == (Option.STARTTLS, OptionReply.ACK)
        wire.start_tls(pki)
        wire.sock.send(option(Option.SET_META_CONTEXT, struct.pack(">II", 0, 0)))
        assert wire.reply() == (Option.SET_META_CONTEXT, OptionReply.ERR_INVALID)
        wire.sock.send(option(Option.STARTTLS))
        assert wire.reply() == (Option.STARTTLS, OptionReply.ERR_INVALID)
        wire.sock.send(option(Option.ABORT))
        assert wire.reply() == (Option.ABORT, OptionReply.ACK)
        assert wire.sock.recv(1) == b""  # with a close_notify, or this raises


def test_what_was_agreed_on_in_the_clear_is_forgotten(pki, image):
    options = ["--tls-certificates", pki / "server"]
    with daemon("file", image, options=options) as server, Wire(server) as wire:
        wire.sock.send(_PLAIN + option(Option.STRUCTURED_REPLY))
        assert wire.reply() == (Option.STRUCTURED_REPLY, OptionReply.ACK)
        wire.sock.send(option(Option.STARTTLS))
        assert wire.reply() == (Option.STARTTLS, OptionReply.ACK)
        wire.start_tls(pki)
        wire.sock.send(option(Option.SET_META_CONTEXT, struct.pack(">II", 0, 0)))
        assert wire.reply() == (Option.SET_META_CONTEXT, OptionReply.ERR_INVALID)


def test_without_tls_a_server_that_requires_it_tells_nothing(required, image):
    with daemon("file", image, options=required) as server:
        with Wire(server) as wire:
            wire.sock.send(_PLAIN)
            for number in (Option.LIST, Option.GO, Option.INFO, Option.STRUCTURED_REPLY, 99):
                wire.sock.send(option(number))
                assert wire.reply() == (number, OptionReply.ERR_TLS_REQD)
            wire.sock.send(option(Option.ABORT))
            assert wire.reply() == (Option.ABORT, OptionReply.ACK)
        with Wire(server) as wire:
            wire.sock.send(_PLAIN + option(Option.EXPORT_NAME))
            assert wire.reply() is None


def test_a_server_without_tls_does_not_know_the_option(image):
    with daemon("file", image) as server, Wire(server) as wire:
        wire.sock.send(_PLAIN + option(Option.STARTTLS))
        assert wire.reply() == (Option.STARTTLS, OptionReply.ERR_UNSUP)


def test_a_bad_client_costs_a_line_that_says_why(pki, required, image):
    with daemon("file", image, options=required) as server:
        with Wire(server) as wire:
            wire.sock.send(_PLAIN + option(Option.STARTTLS))
            wire.reply()
            wire.sock.send(option(Option.LIST) + bytes(100))
            assert b"NBD" not in wire.take(1000)
        assert run("nbdinfo", uri(server, pki / "strange"), check=False).returncode != 0
        assert run("nbdinfo", uri(server, pki / "ca"), check=False).returncode != 0
        run("nbdinfo", uri(server, pki / "client"))
        eventually(lambda: server.log.count("TLS handshake failed") == 3)
        assert "what it sent is not TLS" in server.log
        assert "it has no certificate" in server.log
        assert "Traceback" not in server.log


def test_a_client_that_stalls_amid_the_tls_handshake_is_given_up(required, image):
    options = [*required, "--handshake-timeout", "500ms"]
    with daemon("file", image, options=options) as server, Wire(server) as wire:
        wire.sock.send(_PLAIN + option(Option.STARTTLS))
        wire.reply()
        wire.sock.send(b"\x16\x03\x01")
        assert wire.sock.recv(1) == b""
        assert "handshake timed out" in server.log


def test_a_client_killed_amid_its_transfer_is_nobody_elses_loss(pki, required, tmp_path):
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(8 << 30)
    with daemon("file", image, options=required) as server:
        argv = ["nbdcopy", "--destination-is-zero", uri(server, pki / "client"), "-"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, env=ENVIRONMENT) as copying:
            assert len(copying.stdout.read(32 << 20)) == 32 << 20
            copying.kill()
        eventually(lambda: "connection closed" in server.log)
        run("nbdinfo", uri(server, pki / "client"))
        assert server.terminate() == 0
        assert "Traceback" not in server.log


def test_a_server_killed_amid_a_transfer_is_no_end_of_data(pki, required, tmp_path):
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(8 << 30)
    with daemon("file", image, options=required) as server:
        argv = ["nbdcopy", uri(server, pki / "client"), "-"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env=ENVIRONMENT) as copying:  # fmt: skip
            copying.stdout.read(32 << 20)
            server.kill()
            copying.stdout.read()
            assert copying.wait(60) != 0
