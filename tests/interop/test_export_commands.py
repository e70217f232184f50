"""`nbdctl export add|remove|list` against a running daemon, read by libnbd's clients."""

import json
import socket
import subprocess

import pytest

from chains import pattern
from daemon import daemon
from nbdctl_command import run_nbdctl
from tools import ENVIRONMENT


@pytest.fixture
def control(tmp_path):
    """Run `nbdctl export PART --control … WORDS`."""
    path = tmp_path / "control.sock"

    def control(part, *words, **options):
        return run_nbdctl("export", part, "--control", path, *words, **options)

    control.path = path
    return control


@pytest.fixture
def options(tmp_path, control):
    """A daemon that keeps what is added."""
    return ["--control", control.path, "--state-dir", tmp_path / "state"]


def added(control, *words, **options):
    done = control("add", *words, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def names(control):
    done = control("list", "--json")
    assert done.returncode == 0, done.stderr
    return [export["name"] for export in json.loads(done.stdout)["exports"]]


def size(server, name):
    done = subprocess.run(
        ["nbdinfo", "--size", server.uri(name)], capture_output=True, text=True, check=False
    )
    return int(done.stdout) if done.returncode == 0 else None


def holding(server, name):
    """A client that holds a connection to an export until it is told to read."""
    code = (
        f"h.connect_uri({server.uri(name)!r}); print('on', flush=True); sys.stdin.readline()\n"
        "h.pread(512, 0)\n"
    )
    shell = subprocess.Popen(
        ["nbdsh", "-c", "import sys", "-c", code], env=ENVIRONMENT, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert shell.stdout.readline() == b"on\n"
    return shell


def test_an_export_comes_is_read_and_goes(control, options, tmp_path):
    (tmp_path / "disk.img").write_bytes(pattern(1 << 20))
    with daemon(options=options) as server:
        assert names(control) == []
        told = added(control, "disk", "--layer", "slice:offset=8,length=64K", "-r",
                     "--description", "a slice", "file", "disk.img", cwd=tmp_path)  # fmt: skip
        assert told == "export 'disk' is served\n"
        assert names(control) == ["disk"]
        copied = subprocess.run(
            ["nbdcopy", server.uri("disk"), "-"], capture_output=True, check=True
        ).stdout
        assert copied == pattern(64 << 10, 8)
        listed = subprocess.run(
            ["nbdinfo", "--list", server.uri()], capture_output=True, text=True, check=True
        ).stdout
        assert "a slice" in listed
        assert control("remove", "disk").returncode == 0
        assert names(control) == []
        assert size(server, "disk") is None


def test_what_was_added_is_there_after_kill_and_restart(control, options, tmp_path):
    (tmp_path / "disk.img").write_bytes(pattern(4096))
    with daemon("null", "1M", options=[*options, "-e", "own"]) as server:
        added(control, "one", "file", tmp_path / "disk.img", "lock=false")
        added(control, "two", "--layer", "xz", "--layer", "cache:size=1M", "file", _xz(tmp_path))
        added(control, "three", "memory", "1M")
        assert control("remove", "three").returncode == 0
        server.kill()
    with daemon("null", "1M", options=[*options, "-e", "own"]) as server:
        assert names(control) == ["own", "one", "two"]
        assert size(server, "one") == 4096
        assert size(server, "two") == 100_000


def _xz(folder):
    raw = folder / "packed.img"
    raw.write_bytes(pattern(100_000))
    subprocess.run(["xz", "-0", raw], check=True)
    return folder / "packed.img.xz"


def test_an_added_export_whose_image_is_away_keeps_no_restart_back(control, options, tmp_path):
    image = tmp_path / "disk.img"
    image.write_bytes(pattern(4096))
    with daemon("null", "1M", options=[*options, "-e", "own"]):
        added(control, "disk", "file", image)
    image.rename(tmp_path / "away")
    with daemon("null", "1M", options=[*options, "-e", "own"]) as server:
        assert size(server, "own") == 1 << 20
        assert size(server, "disk") is None
        (tmp_path / "away").rename(image)
        assert size(server, "disk") == 4096


def test_the_configuration_wins_over_what_was_added(control, options):
    with daemon(options=options):
        added(control, "disk", "null", "1M")
    with daemon("null", "2M", options=[*options, "-e", "disk"]) as server:
        assert size(server, "disk") == 2 << 20
        done = control("remove", "disk")
        assert (done.returncode, "stands in the configuration" in done.stderr) == (2, True)


def test_an_export_in_use_is_removed_only_by_force(control, options):
    with daemon(options=options) as server:
        added(control, "disk", "null", "1M")
        shell = holding(server, "disk")
        done = control("remove", "disk")
        assert (done.returncode, "1 clients; --force" in done.stderr) == (1, True)
        assert names(control) == ["disk"]
        assert control("remove", "disk", "--force").returncode == 0
        assert names(control) == []
        shell.communicate(b"\n", timeout=60)
        assert shell.returncode != 0, "its connection is gone"
        assert "Traceback" not in server.log
        added(control, "disk", "null", "2M")
        assert size(server, "disk") == 2 << 20


def test_an_export_that_cannot_be_opened_is_not_added(control, options, tmp_path):
    with daemon("null", "1M", options=options):
        done = control("add", "disk", "file", tmp_path / "none")
        assert (done.returncode, "No such file" in done.stderr) == (1, True)
        assert names(control) == [""]
        (tmp_path / "none").write_bytes(bytes(4096))
        added(control, "disk", "file", tmp_path / "none")


def test_what_cannot_be_kept_is_not_added(control, options, tmp_path):
    """The list's place is taken by a folder: it cannot be replaced, so the export is not served."""
    with daemon("null", "1M", options=options):
        (tmp_path / "state" / "exports.json").mkdir()
        done = control("add", "disk", "null", "1M")
        assert done.returncode == 1
        assert names(control) == [""]
        (tmp_path / "state" / "exports.json").rmdir()
        added(control, "disk", "null", "1M")
        (tmp_path / "state" / "exports.json").unlink()
        (tmp_path / "state" / "exports.json").mkdir()
        assert control("remove", "disk").returncode == 1
        assert names(control) == ["", "disk"], "and what cannot be taken out stays"


def test_without_a_state_folder_it_is_told(control):
    with daemon("null", "1M", options=["--control", control.path]):
        assert "until the daemon ends" in added(control, "disk", "null", "1M")


def test_under_systemd_they_are_kept_in_the_state_folder(control, tmp_path):
    """STATE_DIRECTORY, as systemd.exec(5) has it; the configuration needs no export then."""
    config = tmp_path / "nbdserve.toml"
    config.write_text(f'[server]\ncontrol = "{control.path}"\n')
    environment = {"STATE_DIRECTORY": str(tmp_path / "state")}
    with daemon(options=["--config", config], env=environment):
        assert added(control, "disk", "null", "1M") == "export 'disk' is served\n"
    with daemon(options=["--config", config], env=environment) as server:
        assert size(server, "disk") == 1 << 20


def test_many_at_once_are_all_kept(control, options, tmp_path):
    with daemon(options=options) as server:
        code = (
            "import json, socket, sys\n"
            "for n in range(50):\n"
            "    sock = socket.socket(socket.AF_UNIX); sock.connect(sys.argv[1])\n"
            "    table = {'name': f'{sys.argv[2]}{n}', 'source': {'type': 'null', 'size': '1M'}}\n"
            "    line = {'v': 1, 'command': 'export.add', 'arguments': {'export': table}}\n"
            "    sock.sendall(json.dumps(line).encode() + b'\\n')\n"
            "    assert b'result' in sock.recv(4096)\n"
            "    sock.close()\n"
        )
        argv = ["python3", "-c", code, control.path]
        running = [subprocess.Popen([*argv, letter]) for letter in "abcd"]
        assert [process.wait(60) for process in running] == [0, 0, 0, 0]
        server.kill()
    with daemon(options=options):
        assert len(names(control)) == 200


@pytest.mark.parametrize(
    ("part", "words", "status", "told"),
    [
        ("add", ["disk", "null", "1M"], 1, "there is an export 'disk' already"),
        ("add", ["new", "nul", "1M"], 2, "did you mean 'null'"),
        ("add", ["new", "null", "sise=1M"], 2, "did you mean 'size'"),
        ("add", ["new", "--layer", "xz", "null", "1M"], 1, "xz"),
        ("add", ["x" * 5000, "null", "1M"], 2, "4096 bytes"),
        ("remove", ["dsk"], 2, "did you mean 'disk'"),
    ],
)
def test_a_mistake_is_one_line(control, part, words, status, told):
    with daemon("null", "1M", options=["--control", control.path, "-e", "disk"]):
        done = control(part, *words)
    assert done.returncode == status
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "table",
    [
        {}, {"name": "a"}, {"name": 5, "source": "null"}, {"name": "a", "source": []},
        {"name": "a\0", "source": {"type": "null", "size": 1}},
        {"name": "\ud800", "source": {"type": "null", "size": 1}},
        {"name": "a", "source": {"type": "null", "size": 1}, "layers": "xz"},
        {"name": "a", "source": {"type": "null", "size": 1}, "more": 1},
    ],
    ids=repr,
)  # fmt: skip
def test_a_table_that_is_wrong_is_refused(control, table):
    with daemon("null", "1M", options=["--control", control.path]) as server:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(30)
            sock.connect(str(control.path))
            line = {"v": 1, "command": "export.add", "arguments": {"export": table}}
            sock.sendall(json.dumps(line).encode() + b"\n")
            assert json.loads(sock.recv(65536))["error"]["kind"] == "argument"
        assert names(control) == [""]
        assert "Traceback" not in server.log
