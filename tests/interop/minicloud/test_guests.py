"""start, stop, reboot, resume, info, ip, console, viewer and ssh of real guests on real nodes.

The guests boot a shell on their serial console (tests/lib/shellguest.py), in some seconds under
tcg, so each test does several things with the one it boots.
"""

import contextlib
import json
import os
import pty
import re
import select
import socket
import subprocess
import sys
import tempfile
import termios
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from minicloud.domain.plan import GuestOptions, TcpServer, plan_guest
from minicloud.domain.xml import domain_xml
from minicloud.model.guest import GuestKind, Origin
from minicloud.model.inventory import Bus, Template, VirtType
from shellguest import READY, shell_guest
from waiting import eventually

LONG = 240  # seconds for a guest to boot on a machine that is busy
ESCAPE = b"\x1d"

NODE = """[nodes.{name}]
host = "{address}"
user = "root"
key = "{key}"
"""

NETWORK = """<network><name>leases</name><bridge name='virbr9'/>
<ip address='10.98.0.1' prefix='24'><dhcp><range start='10.98.0.9' end='10.98.0.9'/></dhcp></ip>
</network>"""

NBD = """[nbd]
address = "{address}"
port = {port}
control = "{control}"
overlays = "{overlays}"
"""


@pytest.fixture(scope="session")
def shell(build):
    """The guests' kernel and initramfs, where qemu's own user can read them."""
    with tempfile.TemporaryDirectory(prefix="shellguest-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield shell_guest(folder, build / "guest")


@pytest.fixture
def minicloud(lab, export_server, tmp_path, monkeypatch):
    """Run minicloud on the lab's nodes; gives its status, its document, and standard error."""
    home = tmp_path / "home"
    home.mkdir()
    text = "".join(
        NODE.format(name=node.name, address=node.address, key=lab.key)
        for node in lab.nodes.values()
    )
    text += NBD.format(
        address=export_server.address, port=export_server.port, control=export_server.control,
        overlays=export_server.overlays,
    )  # fmt: skip
    (tmp_path / "minicloud.toml").write_text(text)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("MINICLOUD_CONFIG", str(tmp_path / "minicloud.toml"))
    monkeypatch.setenv("MINICLOUD_KNOWN_HOSTS", str(home / "known_hosts"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)

    def run(*words, seconds=LONG + 30):
        command, *rest = map(str, words)
        done = subprocess.run(
            [sys.executable, "-m", "minicloud", command, "--json", *rest],
            capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        return done.returncode, json.loads(done.stdout or "{}"), done.stderr

    return run


@pytest.fixture
def define(lab, shell):
    """Define a guest on a node; with a disk it is a pet that minicloud made."""

    def make(name, *words, node=1, disk=False, ip=None, run=True, network="bridge:vmbr0"):
        kernel, initrd = shell
        key = lab.key.with_suffix(".pub").read_text().split()
        cmdline = ["console=ttyS0", "panic=-1", "quiet", f"guest.key={key[0]}:{key[1]}", *words]
        cmdline += [f"guest.ip={ip}"] if ip else []
        template = Template(
            name="shell", image=("/none",), memory=200 << 20, vcpus=1, bus=Bus.VIRTIO,
            network=network, kernel=str(kernel), initrd=str(initrd),
            cmdline=" ".join(cmdline),
        )  # fmt: skip
        origin = Origin(
            kind=GuestKind.PET, template="shell", image="/none", export=f"guest/{name}", seed=None,
            created=datetime.now(UTC),
        )  # fmt: skip
        uuid = subprocess.run(
            ["cat", "/proc/sys/kernel/random/uuid"], capture_output=True, text=True, check=True
        ).stdout.strip()
        plan = plan_guest(
            template, GuestOptions(kind=GuestKind.PET), name=name, uuid=uuid, origin=origin,
            server=TcpServer(lab.hub.address, 10809), virt_type=VirtType(lab.virt_type),
        )  # fmt: skip
        xml = domain_xml(plan)
        if not disk:  # then it is none of minicloud's making either
            for part in ("disk", "metadata"):
                xml = re.sub(rf"<{part}.*?</{part}>", "", xml, flags=re.DOTALL)
        lab.nodes[node].run(["virsh", "define", "/dev/stdin"], xml)
        if run:
            lab.nodes[node].run(["virsh", "start", name])
        return uuid

    return make


class Seat:
    """A terminal on which minicloud console runs."""

    def __init__(self, *words):
        self.far, near = pty.openpty()
        self.before = termios.tcgetattr(near)
        self.near = near
        self.seen = b""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "minicloud", "console", *words],
            stdin=near, stdout=near, stderr=near, start_new_session=True,
        )  # fmt: skip

    def type(self, keys):
        os.write(self.far, keys)

    def wait_for(self, words, seconds=LONG):
        """Wait until something is shown that was not shown before; returns all before it."""
        end = time.monotonic() + seconds
        while words not in self.seen:
            left = end - time.monotonic()
            assert left > 0, f"{words} is not in {self.seen[-2000:]}"
            if select.select([self.far], [], [], left)[0]:
                self.seen += os.read(self.far, 1 << 16)
        before, _, self.seen = self.seen.partition(words)
        return before

    def end(self):
        """Wait for its end; returns its status."""
        return self.process.wait(30)

    def close(self):
        """Stand up, whatever is going on; more than once does no harm."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for end in (self.far, self.near):
            with contextlib.suppress(OSError):
                os.close(end)
        self.far = self.near = -1


@pytest.fixture
def seat():
    """Sit down at a terminal with a guest's console."""
    with contextlib.ExitStack() as stack:

        def sit(*words):
            made = Seat(*words)
            stack.callback(made.close)
            return made

        yield sit


def wait_until_ready(seat, *words):
    """Sit down at a guest's console and wait for its shell."""
    made = seat(*words)
    made.wait_for(READY.encode())
    made.wait_for(b"# ")
    return made


def test_a_console_carries_keys_and_words_until_it_is_left(define, minicloud, seat):
    define("talk")
    console = wait_until_ready(seat, "talk")
    console.type(b"echo $((6*7))\r")
    console.wait_for(b"\n42")
    console.wait_for(b"# ")
    console.type(b"sleep 60\r")
    console.wait_for(b"sleep 60")
    console.type(b"\x03")  # the guest's, not ours
    console.wait_for(b"# ")

    status, document, _ = minicloud("console", "--timeout", "20s", "talk")
    assert (status, document["errors"][0]["reason"]) == (2, "libvirt")
    assert document["errors"][0]["message"].startswith("somebody else has its console open")

    thief = seat("--force", "talk")
    console.wait_for(b"it was taken over by somebody else")
    assert console.end() == 1
    thief.type(b"echo $((7*7))\r")
    thief.wait_for(b"\n49")
    thief.type(ESCAPE + b"poweroff -f\r")  # pasted along; it must not reach the guest
    thief.wait_for(b"left; the guest goes on")
    assert thief.end() == 0
    assert termios.tcgetattr(thief.near) == thief.before
    assert minicloud("info", "talk")[1]["guest"]["state"] == "running"


def test_a_console_without_a_terminal_tells_all_until_the_guest_is_off(define, minicloud):
    define("quiet", run=False)
    assert minicloud("console", "quiet")[0] == 2  # off
    assert minicloud("start", "quiet")[1]["guests"][0]["did"] == "started"
    reading = subprocess.Popen(
        [sys.executable, "-m", "minicloud", "console", "quiet"], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in reading.stdout:
        if READY in line:
            break
    status, document, _ = minicloud("stop", "quiet")
    [stopped] = document["guests"]
    assert (status, stopped["did"]) == (0, "stopped"), stopped
    rest, errors = reading.communicate(timeout=30)
    assert "GUEST-BUTTON" in rest
    assert "the guest is off" in errors
    assert reading.returncode == 0
    again = minicloud("stop", "quiet")[1]["guests"][0]
    assert (again["did"], again["message"]) == ("nothing", "is off already")


def test_a_guest_that_does_not_listen_is_forced(define, minicloud, seat):
    define("deaf", "guest.deaf")
    wait_until_ready(seat, "deaf")
    dry = minicloud("stop", "-n", "--grace", "1s", "deaf")[1]["guests"][0]
    assert dry["message"] == "would be asked to stop, and switched off after 1 s"
    rebooted = minicloud("reboot", "--grace", "1s", "deaf")[1]["guests"][0]
    assert (rebooted["did"], rebooted["message"]) == ("reset", "did not start anew in 1 s: reset")
    stopped = minicloud("stop", "--grace", "1s", "deaf")[1]["guests"][0]
    assert (stopped["did"], stopped["message"]) == (
        "forced", "did not stop in 1 s: switched off",
    )  # fmt: skip


def test_a_guest_that_listens_reboots(define, minicloud, seat):
    define("again")
    console = wait_until_ready(seat, "again")
    status, document, _ = minicloud("reboot", "again")
    assert (status, document["guests"][0]["did"]) == (0, "rebooted")
    console.wait_for(b"GUEST-BUTTON")
    console.wait_for(READY.encode())  # the console is the same one


def test_a_guest_is_reached_by_ssh_through_its_node(define, minicloud, seat, lab):
    uuid = define("web", ip=f"{lab.hub.address.rpartition('.')[0]}.101/24")
    wait_until_ready(seat, "web").close()
    status, document, _ = minicloud("ip", "web")
    assert (status, document["errors"][0]["reason"]) == (2, "no-address")
    assert document["silent"]["agent"] == "no guest agent is connected"

    login = ["--user", "root", "-o", f"IdentityFile={lab.key}", "-o", "IdentitiesOnly=yes"]
    address = f"{lab.hub.address.rpartition('.')[0]}.101"
    status, document, errors = minicloud(
        "ssh", *login, "--address", address, "web", "echo", "a  b", "$HOME"
    )
    assert (status, document["stdout"]) == (0, "a  b $HOME\n"), (document, errors)
    # now the node has heard from it
    status, document, _ = minicloud("ip", "web")
    assert status == 0
    assert document["addresses"][0]["address"] == address
    assert document["addresses"][0]["sources"] == ["arp"]
    [listed] = minicloud("list")[1]["guests"]
    assert (listed["ip"], listed["ip_source"]) == (address, "arp")
    status, document, _ = minicloud("ssh", *login, "web", "echo $HOME; exit 7")
    assert (status, document["stdout"], document["status"]) == (7, "/home\n", 7)
    known = Path(os.environ["MINICLOUD_KNOWN_HOSTS"] + ".guests")
    assert uuid in known.read_text()

    # the same guest with another key is a changed one
    assert minicloud("reboot", "--now", "web")[1]["guests"][0]["did"] == "reset"
    wait_until_ready(seat, "web").close()
    status, document, _ = minicloud("ssh", *login, "web", "true")
    assert status == 255
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in document["stderr"]
    # a new guest of that name and address is a new one
    lab.nodes[1].run(["sh", "-c", "virsh destroy web; virsh undefine web"])
    define("web", ip=f"{address}/24")
    wait_until_ready(seat, "web").close()
    status, document, _ = minicloud("ssh", *login, "--address", address, "web", "true")
    assert (status, document["stderr"].count("CHANGED")) == (0, 0)


def test_a_guest_agent_tells_the_addresses_before_anybody_has_heard_of_them(define, minicloud, lab):
    address = f"{lab.hub.address.rpartition('.')[0]}.102"
    define("agented", "guest.agent", ip=f"{address}/24")
    eventually(lambda: minicloud("ip", "agented")[0] == 0, within=LONG)
    _, document, _ = minicloud("ip", "agented")
    [found] = document["addresses"]
    assert (found["address"], found["prefix"], found["interface"]) == (address, 24, "eth0")
    assert found["sources"] == ["agent"]
    _, document, _ = minicloud("info", "agented")
    assert "agent" in json.dumps(document)
    [listed] = minicloud("list")[1]["guests"]
    assert (listed["ip"], listed["ip_source"]) == (address, "agent")


def test_the_lease_of_a_network_of_libvirts_own_tells_the_address(define, minicloud, lab):
    lab.nodes[1].run(["virsh", "net-create", "/dev/stdin"], NETWORK)
    try:
        define("leased", "guest.dhcp", network="network:leases")
        eventually(lambda: minicloud("ip", "leased")[0] == 0, within=LONG)
        _, document, _ = minicloud("ip", "leased")
        [found] = document["addresses"]
        assert (found["address"], found["prefix"]) == ("10.98.0.9", 24)
        assert found["sources"][0] == "lease"
    finally:
        lab.nodes[1].run(["virsh", "net-destroy", "leases"])


def test_a_guests_screen_is_at_a_port_of_this_machine(define, minicloud):
    define("screen")
    watching = subprocess.Popen(
        [sys.executable, "-m", "minicloud", "viewer", "--print", "screen"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        kind, _, place = watching.stdout.readline().strip().partition("://")
        host, _, port = place.partition(":")
        assert (kind, host) == ("vnc", "127.0.0.1")
        with socket.create_connection((host, int(port)), timeout=20) as sock:
            assert sock.recv(12).startswith(b"RFB 003.")
    finally:
        watching.terminate()
        watching.communicate(timeout=30)
    assert watching.returncode == 128 + 15
    display = minicloud("viewer", "screen")[1]["display"]
    assert (display["kind"], display["host"]) == ("vnc", "127.0.0.1")
    status, document, _ = minicloud("viewer", "--print", "screen")  # with --json, as all here
    assert status == 2
    assert "choose one" in document["errors"][0]["message"]


def test_a_guest_paused_by_its_disk_goes_on_once_that_is_served(
    define, minicloud, seat, export_server, tmp_path
):
    image = tmp_path / "disk.raw"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    export_server.add("guest/db", "file", image)
    define("db", disk=True)
    console = wait_until_ready(seat, "db")
    console.type(b"dd if=/dev/zero of=/dev/vda bs=1M count=1 conv=fsync && echo WROTE-$((1+1))\r")
    console.wait_for(b"WROTE-2")
    disk = minicloud("info", "db")[1]["guest"]["disks"][0]
    assert (disk["served"], disk["clients"]) == (True, 1)
    assert disk["written_bytes"] >= 1 << 20

    export_server.stop()
    console.type(b"dd if=/dev/zero of=/dev/vda bs=1M count=1 conv=fsync && echo WROTE-$((2+2))\r")
    assert wait_for_state(minicloud, "db", "paused") == "I/O error"
    status, document, _ = minicloud("stop", "db")
    assert status == 2
    assert "cannot hear" in document["errors"][0]["message"]
    # the server is away: it pauses again
    status, document, _ = minicloud("resume", "--patience", "0", "db")
    assert status == 2
    assert "I/O error" in document["errors"][0]["message"]

    export_server.start()
    status, document, _ = minicloud("resume", "db")
    assert status == 0, document
    [resumed] = document["guests"]
    assert "its export guest/db is served; goes on" in resumed["message"]
    console.wait_for(b"WROTE-4")


def wait_for_state(minicloud, name, state):
    """Wait until a guest is in a state; returns why it is."""
    for _ in range(30):
        guest = minicloud("info", name)[1]["guest"]
        if guest["state"] == state:
            return guest["reason"]
    raise AssertionError(f"{name} is {guest['state']}")


def test_guests_that_cannot_be_found_say_why(define, minicloud, lab):
    define("twin", node=1, run=False)
    define("twin", node=2, run=False)
    status, document, _ = minicloud("start", "twin", "n1:twin", "twn")
    assert status == 1
    [started] = document["guests"]
    assert (started["name"], started["node"], started["did"]) == ("twin", "n1", "started")
    several, unknown = [error["message"] for error in document["errors"]]
    assert "n1:twin, n2:twin" in several
    assert "did you mean 'twin'?" in unknown
    lab.nodes[3].off()
    status, document, _ = minicloud("stop", "nobody")
    assert status == 2
    assert "n3: off" in document["errors"][0]["message"]
