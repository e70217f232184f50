"""The command line, as a shell sees it."""

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from minicloud.cli import COMMANDS

MINIMAL = '[nodes.one]\nhost = "127.0.0.1"\nport = 1\n'


@pytest.fixture
def minicloud(tmp_path):
    """Run minicloud with an empty home."""

    def run(*words, cwd=None, **settings):
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **settings}
        return subprocess.run(
            [sys.executable, "-m", "minicloud", *words],
            capture_output=True, text=True, timeout=60, env=environment, stdin=subprocess.DEVNULL,
            check=False, cwd=cwd or tmp_path,
        )  # fmt: skip

    return run


@pytest.fixture
def inventory(tmp_path):
    path = tmp_path / "inventory.toml"
    path.write_text(MINIMAL)
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(minicloud, command):
    done = minicloud(command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: minicloud {command}")
    assert all(option in done.stdout for option in ("--json", "--timeout", "--node"))


@pytest.mark.parametrize("command", COMMANDS)
def test_the_list_of_commands_says_what_each_says_of_itself(command):
    module = importlib.import_module(f"minicloud.commands.{command}")
    assert COMMANDS[command] == module.HELP


def test_a_file_may_be_called_as_a_command_is(minicloud, tmp_path):
    (tmp_path / "status").write_text(MINIMAL)
    done = minicloud("--config", "status", "list", "--node", "oen")
    assert done.stderr.startswith("minicloud: there is no node 'oen'")


def test_help_loads_neither_asyncssh_nor_rich():
    code = (
        "import sys\nfrom minicloud.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit(bool({'asyncssh', 'libvirt', 'rich'} & set(sys.modules)))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode
        == 0
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lsit"], "unknown command 'lsit'; did you mean 'list'?"),
        (["status", "--jsn"], "unrecognized arguments: --jsn"),
        (["status", "--timeout", "soon"], "argument --timeout: 'soon' is none"),
        (["status", "--node", "oen"], "there is no node 'oen'; did you mean 'one'?"),
        ([], "no command is given"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(minicloud, inventory, words, said):
    done = minicloud(*words, MINICLOUD_CONFIG=str(inventory))
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_an_inventory_the_remedy_is_told(minicloud):
    done = minicloud("status")
    assert done.returncode == 2
    assert "--from-ssh-config" in done.stderr


def test_the_option_goes_before_the_environment(minicloud, inventory):
    done = minicloud("-c", inventory, "status", MINICLOUD_CONFIG="/does/not/exist")
    assert "one" in done.stdout


def test_a_closed_pipe_is_no_traceback(minicloud, inventory):
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m minicloud -c {inventory} status | :"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr


def test_all_that_is_wrong_with_an_inventory_is_told_a_line_each(minicloud, inventory):
    inventory.write_text("[nodes.one]\nport = 0\n[nbd]\n")
    done = minicloud("-c", str(inventory), "status")
    assert done.returncode == 2
    port, address = done.stderr.splitlines()
    assert port.startswith(f"minicloud: {inventory}: nodes.one: port: 0 will not do")
    assert address.startswith(f"minicloud: {inventory}: nbd: address: is missing")


def test_the_catalogue_is_listed(minicloud, inventory):
    inventory.write_text('[templates.debian]\nimage = "https://example.com/debian.raw.xz"\n')
    done = minicloud("-c", str(inventory), "image", "list")
    assert done.returncode == 0
    assert "debian" in done.stdout


def test_a_first_inventory_is_printed(minicloud, tmp_path):
    (tmp_path / "ssh_config").write_text("Host ham0 ham1 spam\n")
    done = minicloud("--ssh-config", str(tmp_path / "ssh_config"), "--from-ssh-config", "ham*")
    assert done.returncode == 0
    assert "[nodes.ham0]" in done.stdout
    assert "spam" not in done.stdout


def test_bash_completes_by_the_snippet(inventory, tmp_path):
    inventory.write_text("[nodes.ham0]\n[nodes.ham1]\n[nodes.spam]\n")
    asking = """
        eval "$(minicloud completion bash)"
        COMP_LINE="minicloud -c inventory.toml status --node h" COMP_POINT=43 COMP_TYPE=9
        _python_argcomplete minicloud
        echo "${COMPREPLY[@]}"
    """
    here = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", asking], env={"PATH": here, "HOME": str(tmp_path)}, cwd=tmp_path,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == "ham0 ham1\n", done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_in_an_orderly_way(tmp_path, number):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        path = tmp_path / "minicloud.toml"
        path.write_text(f'[nodes.mute]\nhost = "127.0.0.1"\nport = {port}\n')
        argv = [sys.executable, "-m", "minicloud", "-c", path, "status"]
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        pipe = subprocess.PIPE
        with subprocess.Popen(argv, env=environment, stdout=pipe) as running, mute.accept()[0]:
            running.send_signal(number)
            assert running.wait(60) == 128 + number


@pytest.mark.parametrize(
    "words", [["lsit"], ["status", "--jsn"], ["status", "--timeout", "soon"], ["image", "lst"]]
)
def test_a_mistake_is_a_document_too_where_one_is_asked_for(minicloud, inventory, words):
    done = minicloud(*words, "--json", MINICLOUD_CONFIG=str(inventory))
    assert done.returncode == 2
    assert [error["reason"] for error in json.loads(done.stdout)["errors"]] == ["usage"]


def test_an_inventory_may_be_called_like_a_command(minicloud, inventory):
    renamed = inventory.rename(inventory.with_name("list"))
    done = minicloud("-c", "list", "status", "--json", "--timeout", "9s", cwd=str(renamed.parent))
    assert json.loads(done.stdout)["nodes"][0]["name"] == "one"


@pytest.mark.parametrize("words", [["status"], ["list"], ["boot", "tiny", "x"], ["stop", "x"]])
def test_an_inventory_without_nodes_is_said_to_be_so(minicloud, inventory, words):
    inventory.write_text("")
    done = minicloud(*words, MINICLOUD_CONFIG=str(inventory))
    assert done.returncode == 2
    assert done.stderr == f"minicloud: {inventory}: it has no nodes; write a [nodes.NAME] table\n"


def test_one_host_under_two_names_is_said(minicloud, inventory):
    inventory.write_text(MINIMAL + MINIMAL.replace("one", "two"))
    done = minicloud("status", MINICLOUD_CONFIG=str(inventory))
    assert "nodes one and two are one host, 127.0.0.1" in done.stderr


def test_a_command_that_is_interrupted_is_a_document_too(inventory, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        inventory.write_text(MINIMAL.replace("port = 1", f"port = {silent.getsockname()[1]}"))
        process = subprocess.Popen(
            [sys.executable, "-m", "minicloud", "-c", inventory, "list", "--json"],
            stdout=subprocess.PIPE, env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        silent.accept()[0].close()
        connection = silent.accept()[0]  # a connection that is closed is tried once more
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
        connection.close()
    assert process.returncode == 143
    assert [error["reason"] for error in json.loads(out)["errors"]] == ["interrupted"]
