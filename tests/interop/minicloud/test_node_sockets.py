"""Guests whose disks come by a Unix socket of their own node, from an nbdserve on each node."""

import json
import subprocess
import tomllib

import pytest

from daemon import nbdserve_argv
from guest import MARKER
from leftbehind import domains
from minicloud_command import minicloud
from nbdctl_command import nbdctl_argv
from waiting import eventually

_FOLDER = "/run/nbdserve"
_NBD = f"""
[nbd]
socket = "{_FOLDER}/nbd.sock"
control = "{_FOLDER}/control.sock"
overlays = "{_FOLDER}/overlays"
"""


@pytest.fixture
def servers(lab, inventory, tiny_web, tiny_image_xz):
    """An nbdserve on each of two nodes, in a folder that only its node has; and no other."""
    text = inventory.read_text()
    before, _, after = text.partition("[nbd]")
    after = after[after.index("[defaults]") :]
    # the web server is on the hub's loopback, where the nodes' own servers do not reach it
    after = after.replace(tiny_web.url("tiny.img.xz"), str(tiny_image_xz.resolve()))
    inventory.write_text(before + _NBD + after)
    assert tomllib.loads(inventory.read_text())["nbd"].keys() == {"socket", "control", "overlays"}
    running = []
    try:
        for node in (lab.nodes[1], lab.nodes[2]):
            node.run(["sh", "-c", f"rm -rf {_FOLDER}; mkdir {_FOLDER}"])
            argv = nbdserve_argv(
                "-U", f"{_FOLDER}/nbd.sock", "--unix-mode", "666",
                "--control", f"{_FOLDER}/control.sock",
                "--pid-file", f"{_FOLDER}/pid", "--state-dir", f"{_FOLDER}/state",
                "--overlay-dir", f"{_FOLDER}/overlays",
            )  # fmt: skip
            process = subprocess.Popen(node.argv(argv), stdin=subprocess.DEVNULL)
            running.append((node, process))
        for node in (lab.nodes[1], lab.nodes[2]):
            eventually(lambda node=node: exports(node) == set())
        yield lab.nodes[1], lab.nodes[2]
    finally:
        for node, process in running:
            if process.poll() is None:  # nsenter, which passes no signal on
                node.run(["sh", "-c", f"kill $(cat {_FOLDER}/pid)"])
            process.wait(30)


def exports(node):
    """Names of the exports of a node's own server; None where it does not answer."""
    words = ["export", "list", "--json", "--control", f"{_FOLDER}/control.sock"]
    argv = node.argv(nbdctl_argv(*words))
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return None
    return {one["name"] for one in json.loads(done.stdout)["exports"]}


def test_guests_have_their_disks_from_their_own_node(lab, servers):
    first, second = servers
    told = minicloud("boot", "tiny", "n1:web1", f"--wait=console:{MARKER}", "--json")
    assert told.status == 0, told
    assert MARKER in told.document["guest"]["line"]  # and powers off
    assert minicloud("boot", "tiny", "n2:web2").status == 0
    second.run(["virsh", "-q", "suspend", "web2"])
    assert exports(first) == {"guest/web1"}
    assert exports(second) == {"guest/web2"}
    assert f"socket='{_FOLDER}/nbd.sock'" in second.run(["virsh", "-q", "dumpxml", "web2"])

    stays = minicloud("migrate", "web2", first.name)
    assert stays.status == 2
    assert "socket" in stays.err
    eventually(lambda: domains(lab) == {"n2:web2"})

    told = minicloud("gc", "--yes", "--min-age", "0", "--node", "n1", "--node", "n2", "--json")
    assert told.status == 0, told
    assert [one["guest"] for one in told.document["leftovers"]] == ["web1"]
    assert exports(first) == set()
    assert minicloud("destroy", "web2").status == 0
    assert exports(second) == set()


def test_a_node_without_a_server_is_told(lab, servers):
    told = minicloud("boot", "tiny", "n3:web3")
    assert told.status == 2
    assert "n3" in told.err
    assert f"{_FOLDER}/control.sock" in told.err
    assert domains(lab) == set()
