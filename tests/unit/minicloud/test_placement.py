import pytest

from minicloud.model.guest import Guest, GuestState, NodeFacts
from minicloud.model.inventory import Node
from minicloud.placement import Candidate, Needs, place

GIB = 1 << 30


def guest(memory, *, is_active=True):
    return Guest(
        name="x", uuid="u", node="n", state=GuestState.RUNNING, vcpus=1, memory=memory,
        is_active=is_active, is_persistent=True,
    )  # fmt: skip


def candidate(name, memory, *used, cpus=4, tags=(), reserve=GIB, off=0):
    facts = NodeFacts(
        hostname=name, cpus=cpus, memory=memory, memory_available=None, libvirt=(9, 0, 0),
        qemu=None, guests=(*map(guest, used), guest(off, is_active=False)),
    )  # fmt: skip
    return Candidate(Node(name=name, host=name, reserve=reserve, tags=tags), facts)


def silent(name, why):
    return Candidate(Node(name=name, host=name), None, why)


def placed(candidates, memory=GIB, vcpus=1, tags=()):
    return place(candidates, Needs(memory=memory, vcpus=vcpus, tags=tags))


def test_the_node_with_most_free_memory_is_chosen():
    """By mclu's rule: 8 GiB - 1 - 4 is less than 6 - 1."""
    outcome = placed([candidate("ham0", 8 * GIB, 4 * GIB), candidate("ham1", 6 * GIB)])
    assert outcome.chosen.name == "ham1"
    assert [(score.node, score.free, score.fits) for score in outcome.scores] == [
        ("ham1", 5 * GIB, True),
        ("ham0", 3 * GIB, True),
    ]
    assert outcome.scores[0].reason == "4.0G left with it"
    assert outcome.refusal == ""


def test_of_equals_it_is_the_first():
    nodes = [candidate(name, 8 * GIB) for name in ("ham2", "ham0", "ham1")]
    assert placed(nodes).chosen.name == "ham2"


def test_guests_that_are_off_hold_no_memory():
    assert placed([candidate("ham0", 4 * GIB, off=4 * GIB)], 3 * GIB).chosen.name == "ham0"


def test_to_the_last_byte_it_fits_and_one_more_does_not():
    nodes = [candidate("ham0", 8 * GIB, 4 * GIB)]
    assert placed(nodes, 3 * GIB).chosen is not None
    assert placed(nodes, 3 * GIB + 1).chosen is None


def test_overcommit_is_refused_with_the_numbers_of_every_node():
    outcome = placed(
        [candidate("ham0", 8 * GIB, 4 * GIB), silent("ham1", "off"), candidate("ham2", GIB // 2)],
        4 * GIB,
    )
    assert outcome.chosen is None
    assert outcome.refusal == (
        "ham0: needs 4.0G, has 3.0G free of 8.0G (1.0G reserved, 4.0G for guests); ham1: off; "
        "ham2: needs 4.0G, has 0B free of 512M (1.0G reserved, 0B for guests)"
    )


def test_a_guest_has_no_more_vcpus_than_its_node_but_they_are_shared():
    busy = candidate("ham0", 8 * GIB, *[GIB] * 6, cpus=4)
    assert placed([busy], vcpus=4).chosen is not None
    assert placed([busy], vcpus=5).refusal == "ham0: needs 5 vCPUs, has 4 CPUs"


def test_a_node_without_a_tag_is_passed_over():
    nodes = [
        candidate("ham0", 9 * GIB),
        candidate("ham1", 4 * GIB, tags=("ssd", "fast")),
        candidate("ham2", 8 * GIB, tags=("ssd",)),
    ]
    outcome = placed(nodes, tags=("ssd", "fast"))
    assert outcome.chosen.name == "ham1"
    assert {score.node: score.reason for score in outcome.scores if not score.fits} == {
        "ham0": "has no tag ssd, fast",
        "ham2": "has no tag fast",
    }


@pytest.mark.parametrize("order", [1, -1])
def test_those_that_will_do_come_first_then_the_order_given(order):
    nodes = [silent("off", "off"), candidate("full", GIB), candidate("good", 4 * GIB)][::order]
    names = [score.node for score in placed(nodes).scores]
    assert names == ["good", *["off", "full"][::order]]


def test_without_nodes_it_says_so():
    assert placed([]).refusal == "there is no node to place it on"
