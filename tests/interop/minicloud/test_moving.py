"""Guests that change their node: live, by drain, and after their node's death; on real nodes."""

import contextlib
import re
import signal
import subprocess

import pytest

from minicloud.model.guest import GuestKind
from minicloud_command import minicloud, minicloud_argv
from movedguests import Guests, succeed
from waiting import eventually


@pytest.fixture
def guests(lab, export_server, tiny_web, inventory):
    return Guests(lab, export_server, tiny_web.url("tiny.img.xz"))


@pytest.fixture
def ham(lab):
    """The three nodes."""
    return [lab.nodes[number] for number in (1, 2, 3)]


@contextlib.contextmanager
def firewall(node, chain, ports):
    """Drop what is sent to some TCP ports; INPUT on the node, or OUTPUT from it."""
    rule = [chain, "-p", "tcp", "--dport", ports, "-j", "DROP"]
    node.run(["iptables", "-I", *rule])
    try:
        yield
    finally:
        node.run(["iptables", "-D", *rule])


# Live migration


async def test_a_guest_writes_and_verifies_all_through_its_migrations(guests, ham):
    first, second, third = ham
    await guests.boot(first, "busy", "guest.verify")
    guests.says(first, "busy", "^GUEST-OK 3$")

    for node in (second, third):
        answer = succeed("migrate", "busy", node.name, "--json")
        assert answer.document["moved"] is True
        assert 0 < answer.document["downtime"] < answer.document["seconds"]
        guests.says(node, "busy", "(?s)GUEST-OK.*GUEST-OK")  # it goes on, and its disk with it
        assert await guests.clients("busy") == 1

    passes = guests.passes("busy")
    assert sorted(set(passes)) == list(range(max(passes) + 1)), "a pass is missing"


async def test_what_is_checked_is_told_without_moving_anything(guests, ham):
    await guests.boot(ham[0], "web1")

    answer = succeed("migrate", "web1", "n2", "--dry-run")

    assert "web1 can move from n1 to n2" in answer.out
    for topic in ("state", "versions", "port", "name", "machine", "cpu", "memory", "disk vda"):
        assert f"\n{topic}  " in f"\n{answer.out}"
    assert "problem" not in answer.out
    assert guests.where("web1") == "n1"


async def test_a_pet_is_defined_where_it_goes_and_nowhere_else(guests, ham):
    await guests.boot(ham[0], "db", kind=GuestKind.PET)

    succeed("migrate", "db", "n3")

    assert guests.virsh(ham[0], "list", "--all", "--name").strip() == ""
    assert guests.virsh(ham[2], "list", "--name", "--persistent", "--autostart").strip() == "db"


async def test_a_pet_that_is_off_moves_as_a_definition(guests, ham):
    await guests.boot(ham[0], "db", kind=GuestKind.PET, is_off=True)

    succeed("migrate", "db", "n2")

    assert guests.virsh(ham[1], "list", "--name", "--inactive").strip() == "db"
    assert guests.virsh(ham[0], "list", "--all", "--name").strip() == ""


async def test_a_guest_with_a_disk_of_its_node_is_refused_and_says_why(guests, ham, lab):
    disk = "/var/lib/libvirt/local.raw"
    ham[0].run(["sh", "-c", f"truncate -s 1M {disk}; chmod 666 {disk}"])
    xml = (
        f"<domain type='{lab.virt_type}'><name>tied</name><memory unit='MiB'>64</memory>"
        "<os><type machine='q35'>hvm</type></os><cpu mode='maximum'/><devices>"
        f"<disk type='file'><driver name='qemu' type='raw'/><source file='{disk}'/>"
        "<target dev='vda' bus='virtio'/></disk></devices></domain>"
    )
    guests.virsh(ham[0], "create", "/dev/stdin", given=xml)

    answer = minicloud("migrate", "tied", "n2")

    assert answer.status == 2
    assert f"its disk {disk} is on its own node" in answer.err
    assert guests.where("tied") == "n1"


async def test_a_target_that_cannot_reach_the_exports_is_refused(guests, ham):
    await guests.boot(ham[0], "web1")

    with firewall(ham[1], "OUTPUT", "10809"):
        answer = minicloud("migrate", "web1", "n2")

    assert answer.status == 2
    assert "n2 cannot reach the export server at 10.99.0.254:10809: no answer" in answer.err
    assert guests.where("web1") == "n1"


async def test_a_target_that_lets_no_migration_in_is_refused(guests, ham):
    await guests.boot(ham[0], "web1")

    with firewall(ham[1], "INPUT", "49152:49215"):
        answer = minicloud("migrate", "web1", "n2")

    assert answer.status == 2
    assert "n1 cannot reach 10.99.0.2:49152: no answer" in answer.err


async def test_a_guest_that_is_there_already_is_no_error(guests, ham):
    await guests.boot(ham[0], "web1")

    assert succeed("migrate", "web1", "n1").out == "web1 is on n1 already\n"


# Moves that do not come to their end


@pytest.fixture
async def slow_move(guests, ham):
    """A verifying guest on n1, and a link to n2 over which it takes a minute to move."""
    await guests.boot(ham[0], "busy", "guest.verify")
    guests.says(ham[0], "busy", "^GUEST-OK 2$")
    ham[1].slow(20_000)


async def begun(guests, *options):
    """Start a move and wait until memory is on its way."""
    child = subprocess.Popen(
        minicloud_argv("migrate", "busy", "n2", *options),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    eventually(lambda: " Outgoing migration" in job(guests), within=60)
    return child


def job(guests):
    return guests.virsh(guests.lab.nodes[1], "domjobinfo", "busy")


async def goes_on(guests, ham):
    """The guest runs on its first node as if nothing had been, and nothing is left elsewhere."""
    last = max(guests.passes("busy"))
    guests.says(ham[0], "busy", f"^GUEST-OK {last + 2}$")
    assert guests.where("busy") == "n1"
    assert await guests.clients("busy") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_move_that_is_interrupted_leaves_the_guest_running(guests, ham, slow_move, number):
    child = await begun(guests)
    child.send_signal(number)

    _, errors = child.communicate(timeout=60)

    assert "busy was not moved to n2: it was interrupted; busy still runs on n1" in errors
    assert child.returncode == 128 + number
    await goes_on(guests, ham)


async def test_a_move_over_its_time_is_given_up_and_says_where_the_guest_is(guests, ham, slow_move):
    answer = minicloud("migrate", "busy", "n2", "--timeout", "6s")

    assert answer.status == 2
    assert "its time was over" in answer.err
    assert "busy still runs on n1" in answer.err
    await goes_on(guests, ham)


async def test_a_target_that_dies_under_a_move_leaves_the_guest_running(guests, ham, slow_move):
    child = await begun(guests)
    ham[1].off()

    _, errors = child.communicate(timeout=90)

    assert "busy still runs on n1" in errors or "goes on there" in errors
    assert child.returncode == 2
    await goes_on(guests, ham)


# Exclusive exports


async def test_a_second_guest_on_the_same_disk_is_kept_out(guests, ham):
    await guests.boot(ham[0], "web1")
    xml = guests.virsh(ham[0], "dumpxml", "web1", "--migratable", "--inactive")

    with pytest.raises(AssertionError, match="in use"):
        guests.virsh(ham[1], "create", "/dev/stdin", given=xml)


async def test_after_a_move_nobody_else_is_let_in(guests, ham):
    await guests.boot(ham[0], "web1")

    succeed("migrate", "web1", "n2")

    (export,) = [
        one for one in (await guests.storage.status())["exports"] if one["name"] == "guest/web1"
    ]
    assert export["lease"]["handover"] is None
    assert export["lease"]["holder"].startswith("10.99.0.2:")


# Draining


async def test_a_drained_node_has_no_guests_and_may_be_switched_off(guests, ham, lab):
    first = ham[0]
    await guests.boot(first, "busy", "guest.verify")
    await guests.boot(first, "db", kind=GuestKind.PET, is_off=True)
    guests.says(first, "busy", "^GUEST-OK 2$")
    refused = minicloud("off", "n1")
    assert refused.status == 2
    assert "busy runs there; minicloud drain n1" in refused.err

    plan = succeed("drain", "n1", "--dry-run", "--json").document
    assert {one["guest"]: one["done"] for one in plan["guests"]} == {"busy": False, "db": False}
    assert guests.where("busy") == "n1"

    answer = succeed("drain", "n1")

    assert "n1 is drained" in answer.out
    assert not first.domains()
    assert {guests.where("busy"), guests.where("db")} <= {"n2", "n3"}
    succeed("off", "n1", "--wait")
    assert not first.is_on()
    # as long as ARP remembers it, it only does not answer
    eventually(lambda: minicloud("off", "n1").out == "n1 is off already\n", 60)
    guests.passes("busy")


async def test_without_room_for_all_none_is_moved(guests, ham):
    await guests.boot(ham[0], "web1")
    for node in ham[1:]:
        node.report_memory(total=160, free=160)  # 64M are reserved

    answer = minicloud("drain", "n1")

    assert answer.status == 2
    assert "web1 needs 128 MiB, and at most 96 MiB are left, on n" in answer.err
    assert guests.where("web1") == "n1"


async def test_a_guest_that_cannot_leave_is_named_or_stopped(guests, ham):
    await guests.boot(ham[0], "web1")
    await guests.boot(ham[0], "held")
    guests.virsh(ham[0], "suspend", "held")

    answer = minicloud("drain", "n1")

    assert answer.status == 1
    assert "held stays on n1: it is paused (user)" in answer.err
    assert guests.where("held") == "n1"
    assert guests.where("web1") != "n1"
    stopped = succeed("drain", "n1", "--stop-others", "--grace", "0s")
    assert "held was switched off" in stopped.out
    assert not ham[0].domains()


# A node's death


async def test_the_guests_of_a_dead_node_start_elsewhere_and_stay_themselves(guests, ham, lab):
    first = ham[0]
    await guests.boot(first, "busy", "guest.verify")
    await guests.boot(first, "db", kind=GuestKind.PET)
    guests.says(first, "busy", "^GUEST-OK 2$")
    guests.says(first, "db", "^GUEST-TICK 1$")
    uuid = guests.virsh(first, "domuuid", "db").strip()
    alive = minicloud("recover", "n1", "--fenced")
    assert "n1 answers" in alive.err
    first.off()
    assert "minicloud recover n1" in minicloud("drain", "n1").err

    unsaid = minicloud("recover", "n1")
    assert unsaid.status == 2
    assert "--fenced" in unsaid.err
    found = succeed("recover", "n1", "--fenced", "--json").document

    assert {one["guest"] for one in found["guests"] if one["started"]} == {"busy", "db"}
    for name in ("busy", "db"):
        node = lab.nodes[int(guests.where(name)[1:])]
        assert node is not first
        guests.says(node, name, "GUEST-(OK|TICK) 2")
        assert await guests.clients(name) == 1
    node = lab.nodes[int(guests.where("db")[1:])]
    assert guests.virsh(node, "domuuid", "db").strip() == uuid
    assert guests.virsh(node, "list", "--name", "--persistent", "--autostart").strip() == "db"

    again = succeed("recover", "n1", "--fenced")
    assert again.out == "n1 had no guests that are known\n"
    first.on()
    woken = succeed("on", "n1", "--wait")
    assert "n1 is on" in woken.out
    assert "db runs on" in woken.out
    assert not first.domains(), "it came back with a definition of a guest that runs elsewhere"


async def test_a_fence_command_that_fails_starts_nothing(guests, ham):
    await guests.boot(ham[0], "web1")
    ham[0].off()

    answer = minicloud(
        "recover", "n1", "--fence-command", "echo no switch for $MINICLOUD_NODE >&2; exit 3",
    )  # fmt: skip

    assert answer.status == 2
    assert "the fence command failed with status 3: no switch for n1" in answer.err
    assert not ham[1].domains() | ham[2].domains()


async def test_cattle_that_had_ended_are_told_from_those_that_ran(guests, ham):
    await guests.boot(ham[0], "web1", "")  # powers off by itself
    eventually(lambda: not ham[0].domains(), within=120)
    await guests.boot(ham[0], "web2")
    guests.says(ham[0], "web2", "^GUEST-TICK 1$")
    ham[0].cut()  # as a power cut to the export server, which hears nothing either

    found = succeed("recover", "n1", "--dry-run", "--json").document

    notes = {one["guest"]: one["note"] for one in found["guests"]}
    assert "ended before" in notes["web1"]
    assert notes["web2"] == ""


async def test_a_node_that_was_only_cut_off_cannot_write_any_more(guests, ham):
    """What `--fenced` promised was not true; no pass of the guest's new life is spoilt."""
    first = ham[0]
    await guests.boot(first, "busy", "guest.verify")
    guests.says(first, "busy", "^GUEST-OK 2$")
    first.cut()

    (started,) = succeed("recover", "n1", "--fenced", "--json").document["guests"]
    second = guests.lab.nodes[int(started["to"][1:])]
    guests.says(second, "busy", "^GUEST-OK 1$")
    first.heal()
    eventually(lambda: "paused" in guests.virsh(first, "domstate", "busy"), within=120)

    last = int(re.findall("GUEST-OK ([0-9]+)", guests.console(second, "busy"))[-1])
    guests.says(second, "busy", f"^GUEST-OK {last + 5}$")
    assert "GUEST-FAIL" not in guests.console(second, "busy")


# Waking


async def test_a_node_that_is_off_is_woken_and_waited_for(lab, ham, inventory):
    ham[1].off()

    with lab.waking():
        answer = succeed("on", "n2", "--wait")

    assert answer.out.splitlines() == [f"Waking up {ham[1].mac}...", "n2 is on"]
    assert ham[1].is_on()
