"""Bad input of every kind: one clear line with the remedy, and the right exit status."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from daemon import nbdserve_argv, run_nbdserve
from nbdctl_command import run_nbdctl
from nbdserve.config import SERVER_KEYS
from waiting import eventually


def assert_one_line(done, status, *parts):
    assert done.returncode == status, done
    lines = [line for line in done.stderr.splitlines() if ": info: " not in line]
    assert len(lines) == 1, done.stderr
    for part in parts:
        assert part in lines[0]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([], ["no source is named", "nbdserve file disk.img"]),
        (["fil", "x"], ["unknown source 'fil'", "did you mean 'file'"]),
        (["xz"], ["'xz' is a layer", "--layer xz"]),
        (["--layer", "file", "null", "1M"], ["'file' is a source"]),
        (["--layer", "xy", "null", "1M"], ["unknown layer 'xy'"]),
        (["--layer", "slice:offst=1", "null", "1M"], ["offst", "did you mean 'offset'"]),
        (["--layer", "slice:offset", "null", "1M"], ["not key=value"]),
        (["memory"], ["needs SIZE"]),
        (["memory", "1Q"], ["1Q", "a size in bytes"]),
        (["memory", "1M", "2M"], ["one argument too many"]),
        (["memory", "1M", "size=2M"], ["given twice"]),
        (["null", "1M", "sise=2M"], ["did you mean 'size'"]),
        (["disk.img"], ["not the name of a source", "nbdserve file disk.img"]),
        (["http://x/y"], ["nbdserve http http://x/y"]),
        (["--port", "70000", "null", "1M"], ["a port from 0 to 65535"]),
        (["--unknown", "null", "1M"], ["--unknown"]),
        (["--handshake-timeout", "soon", "null", "1M"], ["a duration"]),
        (["--single", "--port", "1", "null", "1M"], ["--single"]),
        (["--single", "--bind", "::1", "null", "1M"], ["--single"]),
        (["--single", "--print-uri", "null", "1M"], ["--single", "--print-uri"]),
        (["--max-connections", "0", "null", "1M"], ["--max-connections", "1 or more"]),
        (["--handshake-timeout", "0", "null", "1M"], ["--handshake-timeout", "over 0"]),
        (["--name", "x" * 4097, "null", "1M"], ["--name", "at most 4096 bytes"]),
        (["--description", b"\xff", "null", "1M"], ["--description", "UTF-8"]),
        (["null", "8E"], ["source null: size", "less than 8E"]),
        (["http", "http://x:99999/"], ["http://x:99999/", "no URL", "ort"]),
        (["http", "ftp://x/"], ["no http:// or https:// URL"]),
        (["http", "http://x/", "connections=0"], ["connections", "1 or more"]),
        (["--config", "x", "--description", "y"], ["--config brings its own exports"]),
        (["--unix-owner", "no-such-user", "--unix", "-", "null", "1M"], ["no-such-user", "USER"]),
        (["--unix", "/" + "x" * 200, "null", "1M"], ["longer than 107 bytes"]),
        (["--bind", "a..b", "null", "1M"], ["a..b", "no host name", "--bind"]),
        (["--unix-mode", "9", "--unix", "-", "null", "1M"], ["octal mode"]),
        (["--unix-mode=-1", "--unix", "-", "null", "1M"], ["octal mode"]),
        (["--unix-mode", "77777", "--unix", "-", "null", "1M"], ["octal mode"]),
        (["--help", "fiel"], ["no source or layer", "did you mean 'file'"]),
    ],
)
def test_what_is_wrong_as_written_is_status_2(words, parts):
    assert_one_line(run_nbdserve(*words), 2, *parts)


def test_a_private_socket_in_too_long_a_folder_is_status_2_and_leaves_nothing(tmp_path):
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    done = run_nbdserve("-U", "-", "null", "1M", env={**os.environ, "TMPDIR": str(folder)})
    assert_one_line(done, 2, "longer than 107 bytes", "TMPDIR")
    assert not list(folder.iterdir())


def test_a_pid_file_without_a_name_is_status_1(tmp_path):
    done = run_nbdserve("-P", "", "-U", "-", "null", "1M", cwd=tmp_path)
    assert_one_line(done, 1, "cannot write the pid file")
    assert not list(tmp_path.iterdir())


def test_a_missing_file_is_status_1(tmp_path):
    assert_one_line(run_nbdserve("file", tmp_path / "none"), 1, "No such file", "check the path")


def test_a_file_without_permission_is_status_1(tmp_path):
    """As an ordinary user: root may read everything."""
    (tmp_path / "disk.img").write_bytes(b"x")
    (tmp_path / "disk.img").chmod(0)
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.getuid() and parent.name.startswith("pytest"):
            parent.chmod(0o755)
    code = (  # what is imported later could not be read any more
        "import os, uvloop, nbdserve.cli, nbdserve.sources.file, nbdserve.server.service\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"nbdserve.cli.main(['--run', 'true', 'file', {str(tmp_path / 'disk.img')!r}])"
    )
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert_one_line(done, 1, "Permission denied", "check its permissions")


def test_a_port_that_is_taken_is_status_1():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_nbdserve("-i", "127.0.0.1", "-p", port, "null", "1M")
    assert_one_line(done, 1, str(port), "in use", "choose another --port")


def test_a_raw_image_under_xz_is_status_1_with_the_remedy(tmp_path):
    (tmp_path / "raw.img").write_bytes(bytes(1 << 20))
    assert_one_line(run_nbdserve("--layer", "xz", "file", tmp_path / "raw.img"), 1, "xz")


def test_a_gzip_file_under_xz_is_told_apart(tmp_path):
    (tmp_path / "disk.gz").write_bytes(b"\x1f\x8b\x08" + bytes(5000))
    assert_one_line(run_nbdserve("--layer", "xz", "file", tmp_path / "disk.gz"), 1, "gzip")


def test_an_empty_file_under_xz_is_told_apart(tmp_path):
    (tmp_path / "disk.xz").touch()
    assert_one_line(run_nbdserve("--layer", "xz", "file", tmp_path / "disk.xz"), 1, "is empty")


def test_a_truncated_xz_file_is_status_1(tmp_path):
    raw = tmp_path / "disk.img"
    raw.write_bytes(os.urandom(100_000))
    subprocess.run(["xz", "-0", raw], check=True)
    packed = tmp_path / "disk.img.xz"
    packed.write_bytes(packed.read_bytes()[:-100])
    assert_one_line(run_nbdserve("--layer", "xz", "file", packed), 1, "xz")


def test_an_http_404_is_status_1(tmp_path):
    from nginx import nginx

    with nginx(tmp_path / "web") as web:
        done = run_nbdserve("--layer", "xz", "http", web.url("none.xz"))
    assert_one_line(done, 1, "404", "check the URL")


def test_a_server_that_does_not_answer_is_status_1():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    done = run_nbdserve("http", f"http://127.0.0.1:{port}/x", "retry-for=0")
    assert_one_line(done, 1, f"cannot connect to 127.0.0.1 port {port}: Connection refused")


def test_a_folder_that_is_missing_for_the_socket_is_status_1(tmp_path):
    done = run_nbdserve("-U", tmp_path / "none" / "s", "null", "1M")
    assert_one_line(done, 1, "cannot listen on", "check its folder")


def test_a_bad_configuration_is_status_2_and_names_file_table_and_key(tmp_path):
    config = tmp_path / "bad.toml"
    config.write_text('[[export]]\nsource = { type = "null", sise = "1M" }\n')
    done = run_nbdserve("--config", config)
    assert_one_line(done, 2, "bad.toml", "export 1", "source null", "did you mean 'size'")


def test_a_missing_configuration_is_status_1(tmp_path):
    assert_one_line(run_nbdserve("-c", tmp_path / "none.toml"), 1, "No such file")


def test_check_tells_every_error_of_a_configuration(tmp_path):
    config = tmp_path / "bad.toml"
    config.write_text(
        '[server]\nprot = 1\n[[export]]\nname = "a"\nsource = "nul"\nlayers = ["xy"]\n'
        '[[export]]\nname = "a"\nsource = { type = "null", size = "1M" }\n[other]\n'
        '[[export]]\nname = "a"\nsource = { type = "null", size = "1M" }\n'
    )
    done = run_nbdctl("check", config)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 6, done.stderr


def test_check_tells_of_limits_that_would_serve_nobody(tmp_path):
    config = tmp_path / "bad.toml"
    config.write_text(
        '[server]\nunix-mode = "77777"\nmax-connections = 0\nmax-in-flight = 0\n'
        'handshake-timeout = 0\n[[export]]\nname = "\\u0000"\n'
        'source = { type = "null", size = "1M" }\n'
    )
    done = run_nbdctl("check", config)
    assert done.returncode == 2
    told = done.stderr.splitlines()
    keys = ["unix-mode", "max-connections", "max-in-flight", "handshake-timeout", "name"]
    assert len(told) == len(keys)
    assert all(f": {key}: " in line for key, line in zip(keys, told, strict=True))


def test_check_looks_at_the_credentials(tmp_path):
    config = tmp_path / "nbdserve.toml"
    config.write_text(
        f'[server]\ntls-certificates = "{tmp_path}"\n[[export]]\nname = "a"\n'
        'source = { type = "null", size = "1M" }\n'
    )
    assert_one_line(run_nbdctl("check", config), 2, "server-cert.pem")
    told = json.loads(run_nbdctl("check", "--json", config).stdout)
    assert "server-cert.pem" in told["errors"][0]["message"]


def test_check_spells_a_good_configuration_out(tmp_path):
    config = tmp_path / "good.toml"
    config.write_text('[[export]]\nname = "a"\nsource = { type = "memory", size = "1M" }\n')
    done = run_nbdctl("check", config)
    assert done.returncode == 0
    assert "source memory size=1M" in done.stdout
    told = json.loads(run_nbdctl("check", "--json", config).stdout)
    shown_as_listeners = {"unix", "unix-mode", "unix-owner", "port", "bind"}
    assert set(SERVER_KEYS) - shown_as_listeners <= set(told)
    assert "localhost:10809" in done.stdout


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["--help", "xz"], ["--help", "file"]])
def test_asking_is_status_0(words):
    done = run_nbdserve(*words)
    assert done.returncode == 0
    assert done.stdout
    assert done.stderr == ""


def test_run_ends_with_the_status_of_its_command():
    assert run_nbdserve("null", "1M", "--run", "exit 7").returncode == 7
    assert run_nbdserve("--run", "kill -9 $$", "null", "1M").returncode == 128 + 9


def test_ctrl_c_ends_quietly(tmp_path):
    process = subprocess.Popen(
        nbdserve_argv("-U", tmp_path / "s", "--print-uri", "null", "1M"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline().startswith("nbd+unix:")
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in told
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    "words", [["--help"], ["--print-uri", "--unix", "-", "null", "1M"]], ids=["help", "print-uri"]
)
def test_a_full_stdout_is_status_1(words):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            nbdserve_argv(*words), stdout=full, stderr=subprocess.PIPE,
            text=True, check=False, timeout=60,
        )  # fmt: skip
    assert_one_line(done, 1, "cannot write to stdout: No space left")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_not_given_to_sockets(closed):
    """A supervisor may start it so; libuv aborts when a socket with such a number is closed."""
    words = shlex.join(nbdserve_argv("null", "1M", "--run", "nbdinfo --size $uri; exit 7"))
    for command in (words, shlex.join(nbdserve_argv("--version"))):
        done = subprocess.run(
            ["sh", "-c", f"{command} {closed}"],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == (7 if command == words else 0), done
        assert "rror" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_opening_is_the_exit_status(number):
    process = subprocess.Popen(
        nbdserve_argv("-U", "-", "--layer", "delay:open=1h", "null", "1M"),
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    status = Path(f"/proc/{process.pid}/status")

    def is_handled():
        caught = next(x for x in status.read_text().splitlines() if x.startswith("SigCgt:"))
        return int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1

    eventually(is_handled)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in told


def test_ctrl_c_while_modules_are_imported_ends_quietly(tmp_path):
    (tmp_path / "argparse.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = run_nbdserve("--version", env=environment)
    assert done.returncode == -signal.SIGINT
    assert done.stderr == ""
