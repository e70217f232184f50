"""What virsh of libvirt 9.0 printed, read."""

from pathlib import Path

import pytest

from minicloud.errors import NodeError, Reason
from minicloud.hypervisor.virsh import facts_by_virsh, parse_facts, parse_origins
from minicloud.model.guest import GuestKind, GuestState

GOLDEN = Path(__file__).parent / "golden"


def golden(name):
    return (GOLDEN / name).read_text()


def test_a_node_and_its_guests():
    facts = parse_facts(golden("virsh-facts.txt"), "ham1")
    assert (facts.hostname, facts.cpus) == ("n1", 2)
    assert facts.memory == 24684084 << 10
    assert facts.memory_available == (15486676 + 254348 + 7216304) << 10
    assert (facts.libvirt, facts.qemu) == ((9, 0, 0), (7, 2, 22))
    plain, web = facts.guests
    assert (plain.name, plain.state, plain.reason) == ("plain", GuestState.PAUSED, "user")
    assert (plain.vcpus, plain.memory, plain.is_active) == (2, 128 << 20, True)
    assert (web.name, web.state, web.is_persistent) == ("web 1;x", GuestState.SHUTOFF, True)
    assert plain.uuid == "6cacd38f-33ad-4f9f-af17-e863899ca0ea"


def test_what_minicloud_wrote_into_the_guests():
    origins = parse_origins(golden("virsh-metadata.txt"))
    assert list(origins) == ["0e1baed4-3e78-4a13-8b87-7abb5621f4a3"]
    assert origins["0e1baed4-3e78-4a13-8b87-7abb5621f4a3"].kind is GuestKind.PET


@pytest.mark.parametrize("cut", [0, 40, 400])
def test_what_makes_no_sense_is_libvirts_error(cut):
    with pytest.raises(NodeError) as caught:
        parse_facts(golden("virsh-facts.txt")[:cut], "ham1")
    assert caught.value.reason is Reason.LIBVIRT


def put_virsh(session, text):
    virsh = session.node.key.parent / "bin" / "virsh"
    virsh.write_text(text)
    virsh.chmod(0o755)


async def test_two_commands_ask_for_all_guests(session, faults):
    put_virsh(
        session,
        f'#!/bin/sh\ncase "$4" in *nodeinfo*) cat {GOLDEN}/virsh-facts.txt;;'
        f" *) cat {GOLDEN}/virsh-metadata.txt;; esac\n",
    )
    facts = await facts_by_virsh(session, deadline=10)
    assert [guest.origin is not None for guest in facts.guests] == [False, True]
    assert len(faults.commands) == 2
    assert facts.guests[0].node == session.node.name


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (None, Reason.TOOL),
        ("echo 'error: Failed to connect socket to X: No such file' >&2; exit 1",
         Reason.NO_LIBVIRTD),
        ("echo 'error: Failed to connect socket to X: Permission denied' >&2; exit 1",
         Reason.LIBVIRT_PERMISSION),
        ("echo 'error: something else' >&2; exit 1", Reason.LIBVIRT),
    ],
)  # fmt: skip
async def test_why_virsh_does_not_answer(session, script, reason):
    if script is not None:
        put_virsh(session, f"#!/bin/sh\n{script}\n")
    with pytest.raises(NodeError) as caught:
        await facts_by_virsh(session, deadline=10)
    assert caught.value.reason is reason
