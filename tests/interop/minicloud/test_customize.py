"""The real virt-customize over a real export: what it was told is on the disk, and only there.

Where the matter is when and where it runs, a program that notes how it is called stands for it.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from exportserver import ExportServer
from guest import MARKER
from leftbehind import nothing_is_left
from minicloud_command import minicloud
from smalldebian import read_file, small_debian
from sshnodes import free_port
from virtcustomize import VirtCustomize

PASSWORD = "hunter2-zebra"


@pytest.fixture
def disk(tmp_path):
    """Make the disk's image, in which subscription-manager writes down what it is asked for."""
    folder = tmp_path / "root"
    path = folder / "usr/bin/subscription-manager"
    path.parent.mkdir(parents=True)
    path.write_text('#!/bin/sh\necho "$*" >> /etc/subscriptions\n')
    path.chmod(0o755)
    small_debian(folder, tmp_path / "small.raw")
    return tmp_path / "small.raw"


@pytest.fixture
def served(tmp_path, disk):
    """Serve it as `boot` would, and write an inventory of that server alone."""
    if shutil.which("virt-customize") is None:
        pytest.skip("virt-customize is missing: apt install guestfs-tools linux-image-cloud-amd64")
    server = ExportServer(tmp_path / "nbdserve", "127.0.0.1", free_port())
    server.start()
    layer = f"cow:path={server.overlays / 'small.cow'}"
    server.add("guest/small", "--exclusive", "--layer", layer, "file", disk)
    path = tmp_path / "minicloud.toml"
    path.write_text(
        f'[nbd]\naddress = "127.0.0.1"\nport = {server.port}\ncontrol = "{server.control}"\n'
    )
    yield path, f"nbd://127.0.0.1:{server.port}/guest/small"
    server.stop()


def crypt(password, salt):
    """Hash by the C library, of whatever kind the salt is."""
    told = subprocess.run(
        ["perl", "-e", "print crypt($ARGV[0], $ARGV[1])", password, salt],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return told.stdout


def test_a_disk_is_customised_over_its_export(served, disk, tmp_path, monkeypatch):
    config, uri = served
    before = disk.read_bytes()
    site = tmp_path / "site"
    site.mkdir()
    site.joinpath("index.html").write_text("hello\n")
    password = tmp_path / "pw"
    password.write_text(f"{PASSWORD}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    told = minicloud(
        "-c", config, "customize", "guest/small", "--json",
        "--no-network", "--hostname", "web1", "--write", "/etc/motd:one\n  two \\ three\n",
        "--run-command", "echo ran > /etc/ran", "--copy-in", f"{site}:/home",
        "--root-password", f"file:{password}", "--ssh-inject", "root:string:ssh-ed25519 AA x:y",
        "--sm-credentials", f"me:file:{password}", "--sm-register", "--sm-attach", "pool:8a",
        "--sm-unregister", "--delete", "/etc/fstab", "--no-logfile",
    )  # fmt: skip
    assert told.status == 0, told
    assert told.document["place"] == "this machine"
    after = tmp_path / "after.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", uri, after], check=True, timeout=120)
    assert read_file(after, "/etc/hostname") == "web1\n"
    assert read_file(after, "/etc/motd") == "one\n  two \\ three\n"
    assert read_file(after, "/etc/ran") == "ran\n"
    assert read_file(after, str(Path("/home", "site/index.html"))) == "hello\n"
    assert read_file(after, "/etc/fstab") == ""
    assert "ssh-ed25519 AA x:y" in read_file(after, str(Path("/root", ".ssh/authorized_keys")))
    hashed = read_file(after, "/etc/shadow").split(":")[1]
    assert hashed == crypt(PASSWORD, hashed)
    assert len(read_file(after, "/etc/machine-id")) == 33
    assert read_file(after, "/etc/subscriptions").splitlines() == [
        f"register --username=me --password={PASSWORD}",
        "attach --pool=8a",
        "unregister",
    ]
    assert disk.read_bytes() == before
    assert read_file(after, "/tmp/builder.log") == ""


@pytest.fixture
def noting(inventory, tmp_path, monkeypatch):
    """A template whose guests are customized, by a program that notes how it is called."""
    text = inventory.read_text()
    begun = text.index("[templates.tiny]")
    table = text[begun:].replace("[templates.tiny]", "[templates.made]")
    (tmp_path / "pw").write_text(f"{PASSWORD}\n")
    inventory.write_text(f'{text}\n{table}\ncustomize = ["root-password file:pw", "update"]\n')
    made = VirtCustomize(tmp_path / "noting")
    monkeypatch.setenv("PATH", f"{made.bin}:{os.environ['PATH']}")
    return made


def test_a_template_is_applied_before_the_first_start(lab, noting, export_server):
    noting.tell(output="virt-customize: a word to the operator\n")
    told = minicloud("boot", "made", "n1:web1", f"--wait=console:{MARKER}", "--json")
    assert told.status == 0, told
    assert told.document["customized"] == {
        "place": "this machine", "output": ["virt-customize: a word to the operator"],
    }  # fmt: skip
    (run,) = noting.runs
    assert run.argv[3] == f"nbd://{export_server.address}:{export_server.port}/guest/web1"
    assert run.commands == "root-password file:secrets/0\nupdate\nselinux-relabel\n"
    assert run.seen("secrets/0").decode() == f"{PASSWORD}\n"
    assert PASSWORD not in run.processes


def test_what_fails_leaves_no_guest(lab, noting, export_server):
    noting.tell(status="1\n", errors="virt-customize: error: no space\n")
    told = minicloud("boot", "made", "n1:web1", "--json")
    assert told.status == 2
    (error,) = told.document["errors"]
    assert error["message"].startswith("virt-customize on this machine ended with status 1: no sp")
    assert nothing_is_left(lab, export_server)


def test_a_running_guest_is_left_alone(lab, noting):
    assert minicloud("boot", "tiny", "n2:web1", "--pet").status == 0
    told = minicloud("customize", "web1", "--update", "--json")
    assert told.status == 2
    assert "web1 on n2 is running" in told.document["errors"][0]["message"]
    assert noting.runs == []
    told = minicloud("stop", "web1", "--now")
    assert told.status == 0, told
    told = minicloud("customize", "web1", "--update", "--node", "n2", "--dry-run", "--json")
    assert told.status == 0, told
    assert (told.document["export"], told.document["place"]) == ("guest/web1", "n2")
    told = minicloud("customize", "web1", "--update", "--json")
    assert told.status == 0, told
    assert (told.document["place"], len(noting.runs)) == ("this machine", 1)
