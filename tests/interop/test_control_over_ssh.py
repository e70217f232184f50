"""The control socket through a real sshd, which forwards Unix sockets: who is it then?"""

import contextlib
import json
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from daemon import daemon
from nbdctl_command import run_nbdctl
from waiting import eventually

OPERATOR = "www-data"  # any user of Debian's own that is not root


@pytest.fixture
def reachable():
    """A folder that any user may pass through; pytest closes those above its own."""
    with tempfile.TemporaryDirectory(prefix="nbdserve-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def sshd(reachable):
    """An sshd on loopback that lets root and an operator in by one key; gives ssh's options."""
    folder = reachable
    for name in ("host", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name],
                       check=True)  # fmt: skip
    (folder / "key.pub").chmod(0o644)
    Path("/run/sshd").mkdir(exist_ok=True)  # where it goes for who has not logged in yet
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/key.pub\nStrictModes no\nPermitRootLogin yes\n"
        f"PidFile none\nPasswordAuthentication no\n"
    )
    with (folder / "sshd.log").open("w") as log:
        process = subprocess.Popen(
            ["/usr/sbin/sshd", "-D", "-e", "-f", folder / "sshd_config"], stderr=log
        )
    try:
        eventually(lambda: _listens(port))
        yield ["-F", "none", "-p", str(port), "-i", str(folder / "key"), "-o", "BatchMode=yes",
               "-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={folder}/known",
               "-o", "ExitOnForwardFailure=yes"]  # fmt: skip
    finally:
        process.terminate()
        process.wait(60)


def _listens(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


@contextlib.contextmanager
def forwarded(options, user, local, remote):
    """Forward a Unix socket, as minicloud does."""
    process = subprocess.Popen(
        ["ssh", *options, "-N", "-L", f"{local}:{remote}", f"{user}@127.0.0.1"]
    )
    try:
        eventually(local.exists)
        yield local
    finally:
        process.terminate()
        process.wait(60)
        local.unlink(missing_ok=True)


def asked(path):
    return run_nbdctl("status", "--control", path, "--json")


def test_who_logs_in_as_root_controls_the_daemon(reachable, sshd):
    with daemon("null", "1M", options=["--control", reachable / "c"]) as server:
        with forwarded(sshd, "root", reachable / "far", reachable / "c") as path:
            done = asked(path)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["pid"] == server.process.pid


def test_an_operator_who_is_not_root_does_so_by_the_sockets_group(reachable, sshd):
    options = ["--control", reachable / "c", "--control-mode", "660", "--control-owner",
               f"root:{OPERATOR}"]  # fmt: skip
    with daemon("null", "1M", options=options) as server:
        found = (reachable / "c").stat()
        assert (found.st_uid, found.st_mode & 0o777) == (0, 0o660)
        with forwarded(sshd, OPERATOR, reachable / "far", reachable / "c") as path:
            done = asked(path)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["pid"] == server.process.pid


def test_without_that_an_operator_is_refused_whatever_the_mode(reachable, sshd):
    with daemon("null", "1M", options=["--control", reachable / "c"]):
        (reachable / "c").chmod(0o666)
        with forwarded(sshd, OPERATOR, reachable / "far", reachable / "c") as path:
            done = asked(path)
    assert done.returncode == 1
    assert "only root and the user the daemon runs as" in done.stderr
