"""Guests made and removed by the real command on the lab's nodes, and what a failure leaves."""

import json
import signal
import socket
import subprocess

import pytest

from guest import MARKER
from leftbehind import domains, exports, nothing_is_left, overlays
from minicloud_command import minicloud, minicloud_argv
from waiting import eventually


def user_data(tmp_path, *words):
    """A file that tells the guest what to do."""
    path = tmp_path / "user-data"
    path.write_text("#cloud-config\n" + "".join(f"# {word}\n" for word in words))
    return path


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_guest_boots_from_the_remote_image_on_each_node(lab, inventory, export_server, number):
    node = lab.nodes[number]
    told = minicloud("boot", "tiny", f"{node.name}:web1", f"--wait=console:{MARKER}", "--json")
    assert told.status == 0, told
    assert told.document["guest"]["node"] == node.name
    assert MARKER in told.document["guest"]["line"]
    assert MARKER in node.run(["cat", "/var/log/libvirt/qemu/web1-console.log"])
    assert exports(export_server) == {"guest/web1", "domain/web1"}

    gone = minicloud("destroy", "web1")
    assert gone.status == 0, gone
    assert nothing_is_left(lab, export_server)


def test_a_guest_with_a_seed_is_waited_for_until_its_ssh_answers(
    lab, inventory, export_server, tmp_path
):
    node = lab.nodes[2]
    words = ("guest.ip=10.99.0.101/24", f"guest.ping={node.address}", "guest.stay")
    told = minicloud(
        "boot", "tiny", "n2:web1", "--cloud-init", user_data(tmp_path, *words),
        "--hostname", "www", "--wait", "--json",
    )  # fmt: skip
    assert told.status == 0, told
    assert told.document["guest"]["ip"] == "10.99.0.101"
    assert exports(export_server) == {"guest/web1", "seed/web1", "domain/web1"}
    said = node.run(["cat", "/var/log/libvirt/qemu/web1-console.log"])
    assert '"local-hostname": "www"' in said


def test_a_guest_waited_for_in_vain_goes_on(lab, inventory, export_server):
    told = minicloud("boot", "tiny", "n1:web1", "--wait=500ms", "--json")
    assert told.status == 1
    (error,) = told.document["errors"]
    assert error["reason"] == "deadline"
    assert "no address of it is known yet" in error["message"]
    assert domains(lab) == {"n1:web1"}


def test_a_guest_that_ended_is_not_waited_for(lab, inventory, export_server):
    told = minicloud("boot", "tiny", "n1:web1", "--wait=console:what it never says", "--json")
    assert told.status == 1
    (error,) = told.document["errors"]
    assert "the guest has ended by itself" in error["message"]
    assert minicloud("destroy", "web1").status == 0
    assert nothing_is_left(lab, export_server)


def test_a_pet_is_defined_and_asks_before_it_goes(lab, inventory, export_server):
    node = lab.nodes[1]
    assert minicloud("boot", "tiny", "n1:rex", "--pet").status == 0
    info = node.run(["virsh", "-q", "dominfo", "rex"])
    assert "Persistent:     yes" in info
    assert "Autostart:      enable" in info

    asked = minicloud("destroy", "rex")
    assert asked.status == 2
    assert "nobody said yes" in asked.err
    assert domains(lab) == {"n1:rex"}

    assert minicloud("destroy", "rex", "--yes", "--keep-disk").status == 0
    assert domains(lab) == set()
    assert (exports(export_server), overlays(export_server)) == ({"guest/rex"}, {"rex.cow"})
    refused = minicloud("boot", "tiny", "n2:rex")
    assert (refused.status, "is still served" in refused.err) == (2, True), refused

    assert minicloud("destroy", "rex").status == 0, "of a guest that is gone its disk goes unasked"
    assert nothing_is_left(lab, export_server)


def test_without_a_node_the_one_with_most_memory_is_chosen(lab, inventory, export_server):
    lab.nodes[1].report_memory(total=2000, free=1000)
    lab.nodes[2].report_memory(total=4000, free=1000)
    lab.nodes[3].report_memory(total=150, free=100)
    told = minicloud("boot", "tiny", "web1", "--memory", "1G", "--explain", "--dry-run", "--json")
    assert told.status == 0, told
    assert told.document["guest"]["node"] == "n2"
    scores = told.document["scores"]
    assert [(one["node"], one["fits"]) for one in scores] == [
        ("n2", True), ("n1", True), ("n3", False),
    ]  # fmt: skip
    assert nothing_is_left(lab, export_server)

    refused = minicloud("boot", "tiny", "web1", "--memory", "8G")
    assert refused.status == 2
    for name in ("n1", "n2", "n3"):
        assert f"{name}: needs 8.0G" in refused.err


def test_of_two_boots_at_once_on_room_for_one_the_first_stays(
    lab, inventory, export_server, tmp_path
):
    lab.nodes[1].report_memory(total=300, free=300)  # 64 reserved, 128 for a guest
    stay = ["--cloud-init", user_data(tmp_path, "guest.stay"), "--json"]
    both = [
        subprocess.Popen(
            minicloud_argv("boot", "tiny", f"n1:{name}", *stay),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        )
        for name in ("one", "two")
    ]  # fmt: skip
    told = [json.loads(process.communicate(timeout=120)[0]) for process in both]
    assert sorted(process.returncode for process in both) == [0, 2], told
    (refused,) = [one for one in told if one["errors"]]
    assert "free" in refused["errors"][0]["message"]
    assert len(domains(lab)) == 1
    (name,) = (one.partition(":")[2] for one in domains(lab))
    assert exports(export_server) == {f"guest/{name}", f"seed/{name}", f"domain/{name}"}
    assert minicloud("destroy", name).status == 0


def test_a_name_is_unique_among_all_nodes_and_one_that_is_off_is_told(
    lab, inventory, export_server
):
    assert minicloud("boot", "tiny", "n1:web1").status == 0
    refused = minicloud("boot", "tiny", "n2:web1")
    assert refused.status == 2
    assert "is still served" in refused.err, "its export is asked first: it costs nothing"

    lab.nodes[2].run(["virsh", "-q", "define", "/dev/stdin"], _foreign("old"))
    refused = minicloud("boot", "tiny", "n1:old")
    assert (refused.status, "there is a guest old on n2" in refused.err) == (2, True), refused

    lab.nodes[3].off()
    told = minicloud("boot", "tiny", "n2:web2")
    assert told.status == 0, told
    assert "n3: " in told.err
    assert "whether a guest web2 is there is not known" in told.err
    refused = minicloud("destroy", "web3")
    assert (refused.status, "may be on n3" in refused.err) == (2, True), refused


def _foreign(name):
    return (
        f"<domain type='qemu'><name>{name}</name><memory>65536</memory>"
        "<os><type arch='x86_64'>hvm</type></os></domain>"
    )


@pytest.mark.parametrize("kind", [[], ["--pet"]], ids=["cattle", "pet"])
def test_a_domain_libvirt_refuses_leaves_nothing_behind(lab, inventory, export_server, kind):
    words = ["boot", "tiny", "n1:web1", "--network", "bridge:nowhere", "--hostname", "www", *kind]
    told = minicloud(*words)
    assert told.status == 2
    assert "n1: " in told.err
    assert "nowhere" in told.err
    assert nothing_is_left(lab, export_server)


def test_an_image_that_cannot_be_opened_leaves_nothing_behind(lab, inventory, export_server):
    text = inventory.read_text()
    inventory.write_text(text.replace("tiny.img.xz", "missing.img.xz"))
    told = minicloud("boot", "tiny", "n1:web1")
    assert told.status == 2
    assert "404" in told.err
    assert nothing_is_left(lab, export_server)


def test_a_disk_smaller_than_its_image_leaves_nothing_behind(lab, inventory, export_server):
    told = minicloud("boot", "tiny", "n1:web1", "--size", "1M")
    assert told.status == 2
    assert nothing_is_left(lab, export_server)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_boot_that_is_interrupted_leaves_nothing_behind(
    lab, inventory, export_server, silent_url, number
):
    """It waits for an image whose server accepts and says nothing."""
    server, url = silent_url
    lines = inventory.read_text().splitlines()
    inventory.write_text("\n".join(f'image = "{url}"' if "image" in one else one for one in lines))
    with subprocess.Popen(
        minicloud_argv("boot", "tiny", "n1:web1"), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            client, _ = server.accept()
            with client:
                assert client.recv(1), "nbdserve asks for the image: the boot is under way"
                process.send_signal(number)
                _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 128 + number, err
    eventually(lambda: nothing_is_left(lab, export_server))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_waiting_that_is_interrupted_leaves_the_guest_running_and_says_so(
    lab, inventory, export_server, tmp_path, number
):
    name = f"waits{int(number)}"  # no other guest's console log says that its start is over
    with subprocess.Popen(
        minicloud_argv("boot", "tiny", f"n1:{name}", "--wait=console:nobody says so", "--json",
                       "--cloud-init", user_data(tmp_path, "guest.stay")),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            eventually(lambda: MARKER in said(lab.nodes[1], name), within=120)
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 128 + number, err
    assert [error["reason"] for error in json.loads(out)["errors"]] == ["interrupted"]
    assert domains(lab) == {f"n1:{name}"}
    assert minicloud("destroy", name).status == 0


def said(node, guest):
    """What a guest has said on its console."""
    log = f"/var/log/libvirt/qemu/{guest}-console.log"
    return node.run(["sh", "-c", 'cat "$0" || true', log])


@pytest.fixture
def silent_url(lab):
    """A listening socket in the hub's network, and a URL that leads to it."""
    with socket.create_server((lab.hub.address, 0)) as server:
        server.settimeout(60)
        yield server, f"http://{lab.hub.address}:{server.getsockname()[1]}/tiny.img.xz"


def test_a_dry_run_changes_nothing_and_shows_the_xml(lab, inventory, export_server):
    told = minicloud("boot", "tiny", "n1:web1", "-n")
    assert told.status == 0, told
    assert "web1 would be made on n1" in told.out
    assert "<name>web1</name>" in told.out
    assert nothing_is_left(lab, export_server)


def test_a_guest_that_ended_by_itself_has_its_disk_removed_by_destroy(
    lab, inventory, export_server
):
    assert minicloud("boot", "tiny", "n1:web1").status == 0
    lab.nodes[1].run(["virsh", "-q", "destroy", "web1"])
    assert overlays(export_server) == {"web1.cow"}
    told = minicloud("destroy", "web1")
    assert told.status == 0, told
    assert nothing_is_left(lab, export_server)


def test_a_foreign_guest_is_forced_off_and_keeps_its_definition(lab, inventory, export_server):
    lab.nodes[2].run(["virsh", "-q", "define", "/dev/stdin"], _foreign("old"))
    lab.nodes[2].run(["virsh", "-q", "start", "old"])
    assert minicloud("destroy", "old").status == 2
    assert minicloud("destroy", "old", "--yes").status == 0
    assert lab.nodes[2].run(["virsh", "-q", "domstate", "old"]).strip() == "shut off"
