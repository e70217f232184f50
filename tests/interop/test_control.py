"""`nbdctl status` and `nbdctl warm` against a running daemon, with libnbd's clients on it."""

import json
import os
import signal
import subprocess
import sys

import pytest

from daemon import daemon, run_nbdserve
from nbdctl_command import nbdctl_argv, run_nbdctl
from nginx import nginx
from tools import ENVIRONMENT
from waiting import eventually


@pytest.fixture
def path(tmp_path):
    return tmp_path / "control.sock"


def status(path):
    done = run_nbdctl("status", "--control", path, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_status_tells_what_is_served_and_to_whom(path, image):
    chain = ["--layer", "readonly", "--layer", "stats", "file", image]
    options = ["--control", path, "-e", "disk", "--description", "a disk"]
    with daemon(*chain, options=options) as server:
        code = (
            "import sys\n"
            f"h.connect_uri({server.uri('disk')!r})\n"
            "h.pread(512, 0)\n"
            "print('connected', flush=True); sys.stdin.readline()\n"
        )
        shell = subprocess.Popen(
            ["nbdsh", "-c", code], env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert shell.stdout.readline() == b"connected\n"
        found = status(path)
        shell.communicate(b"\n", timeout=60)
        text = run_nbdctl("status", "--control", path).stdout
        eventually(lambda: status(path)["clients"] == [])
    assert found["pid"] == server.process.pid
    assert found["state"] == "serving"
    assert (found["state_dir"], found["overlay_dir"]) == (None, None)
    assert found["overlay_space"] is None
    assert found["listeners"] == [server.uri()]
    (client,) = found["clients"]
    assert (client["export"], client["requests"]) == ("disk", 1)
    (export,) = found["exports"]
    assert export["name"] == "disk"
    assert export["size"] == image.stat().st_size
    assert export["connections"] == 1
    assert "read_only" in export["flags"]
    assert [device["element"] for device in export["devices"]] == ["readonly", "stats", "file"]
    assert "export 'disk': 4 MiB, read-only" in text
    assert "  a disk" in text


def test_status_is_told_while_it_drains(path):
    options = ["--control", path]
    with daemon("--layer", "delay:read=1h", "null", "1M", options=options) as server:
        code = f"h.connect_uri({server.uri()!r}); print('on', flush=True); h.pread(512, 0)"
        shell = subprocess.Popen(
            ["nbdsh", "-c", code],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert shell.stdout.readline() == b"on\n"
        eventually(lambda: status(path)["clients"][0]["requests"] == 1)
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: "draining clients" in server.log)
        found = status(path)
        assert (found["state"], found["listeners"]) == ("draining", [])
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        shell.communicate(timeout=60)
    assert not path.exists()


def test_an_export_that_is_not_open_says_why(path, tmp_path, image):
    config = tmp_path / "nbdserve.toml"
    config.write_text(
        f"""
        [server]
        control = "{path}"
        [[export]]
        name = "good"
        source = {{ type = "file", path = "{image}" }}
        [[export]]
        name = "late"
        source = {{ type = "file", path = "{tmp_path}/late.img" }}
        """
    )
    with daemon(options=["--config", config]) as server:
        late = status(path)["exports"][1]
        assert not late["open"]
        assert "No such file" in late["error"]
        assert "not open: file:" in run_nbdctl("status", "--control", path).stdout
        (tmp_path / "late.img").write_bytes(bytes(4096))
        subprocess.run(["nbdinfo", "--size", server.uri("late")], check=True, capture_output=True)
        late = status(path)["exports"][1]
        assert (late["open"], late["error"], late["size"]) == (True, None, 4096)


def test_warming_fetches_once_what_clients_then_read_for_nothing(path, tmp_path):
    with nginx(tmp_path / "web") as web:
        data = os.urandom(3 << 20)
        (web.files / "disk.img").write_bytes(data)
        chain = ["--layer", "cache:size=16M", "http", web.url("disk.img")]
        with daemon(*chain, options=["--control", path]) as server:
            done = run_nbdctl("warm", "--control", path, "--length", "2M", "")
            assert done.returncode == 0, done.stderr
            assert "2 MiB warm" in done.stdout
            fetched = sum(hit.sent for hit in web.hits())
            assert 2 << 20 <= fetched < 3 << 20
            web.forget()
            subprocess.run(
                ["nbdsh", "-c", f"h.connect_uri({server.uri()!r}); h.pread(2 << 20, 0)"],
                env=ENVIRONMENT, check=True,
            )  # fmt: skip
            assert web.hits() == []


def test_warming_an_xz_image_goes_past_its_bad_block(path, tmp_path):
    data = os.urandom(1 << 20)
    packed = bytearray(
        subprocess.run(
            ["xz", "-0", "-c", "--block-size=64KiB"], input=data, capture_output=True, check=True
        ).stdout
    )
    packed[len(packed) // 2] ^= 1
    (tmp_path / "disk.xz").write_bytes(packed)
    options = ["--control", path, "-e", "disk"]
    with daemon("--layer", "xz", "file", tmp_path / "disk.xz", options=options) as server:
        done = run_nbdctl("warm", "--control", path, "disk")
        assert done.returncode == 1
        assert "corrupt" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert (
            subprocess.run(["nbdinfo", "--size", server.uri("disk")], check=False).returncode == 0
        )


def test_warming_stops_when_nbdctl_is_interrupted(path):
    options = ["--control", path, "-e", "disk"]
    with daemon("--layer", "delay:read=1h,cache=1h", "pattern", "1G", options=options):
        process = subprocess.Popen(
            nbdctl_argv("warm", "--control", path, "disk"), stderr=subprocess.PIPE, text=True
        )
        eventually(lambda: status(path)["exports"][0]["in_use"])
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "Traceback" not in told
        eventually(lambda: not status(path)["exports"][0]["in_use"])


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["warm", "dsk"], 2, "did you mean 'disk'"),
        (["warm", "disk", "--offset", "2M"], 2, "past the end"),
        (["warm", "disk", "--length", "x"], 2, "a size in bytes"),
        (["status", "--jsn"], 2, "unknown option"),
    ],
)
def test_a_mistake_is_one_line(path, words, code, told):
    with daemon("null", "1M", options=["--control", path, "-e", "disk"]):
        command, *rest = words
        done = run_nbdctl(command, "--control", path, *rest)
    assert done.returncode == code
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_no_daemon_is_told_with_the_remedy(path, tmp_path):
    done = run_nbdctl("status", "--control", path)
    assert (done.returncode, "start nbdserve with --control" in done.stderr) == (1, True)
    with daemon("null", "1M", options=["--control", path]) as server:
        server.kill()
    done = run_nbdctl("status", env={**os.environ, "NBDSERVE_CONTROL": str(path)})
    assert (done.returncode, "any more" in done.stderr) == (1, True)


def test_what_is_no_control_socket_is_told(path):
    with daemon("null", "1M") as server:
        done = run_nbdctl("status", "--control", server.socket)
    assert done.returncode == 1
    assert "is no control socket" in done.stderr


def test_another_user_is_told_that_it_may_not(path):
    for parent in path.parents:
        if parent.stat().st_mode & 0o777 == 0o700:
            parent.chmod(0o711)
    code = (  # what is imported later could not be read any more
        "import os, nbdserve.nbdctl\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"nbdserve.nbdctl.main(['status', '--control', {str(path)!r}])"
    )
    with daemon("null", "1M", options=["--control", path]):
        for mode, told in ((0o600, "no permission"), (0o666, "only root and the user")):
            path.chmod(mode)
            done = subprocess.run(
                [sys.executable, "-c", code],
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            assert done.returncode == 1
            assert told in done.stderr
            assert len(done.stderr.splitlines()) == 1


def test_under_systemd_the_socket_is_where_the_units_say(tmp_path):
    """RUNTIME_DIRECTORY, as systemd.exec(5) has it."""
    environment = {"RUNTIME_DIRECTORY": f"{tmp_path}/one:{tmp_path}/two"}
    (tmp_path / "one").mkdir()
    with daemon("null", "1M", env=environment):
        assert status(tmp_path / "one" / "control.sock")["state"] == "serving"


def test_a_control_socket_that_cannot_be_had_fails_the_start(tmp_path):
    done = run_nbdserve("--control", tmp_path / "none" / "c", "-U", tmp_path / "s", "null", "1M")
    assert done.returncode == 1
    assert "check its folder" in done.stderr
    assert not (tmp_path / "s").exists()
