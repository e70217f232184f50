"""Which guests were on a node that died."""

from dataclasses import replace

from minicloud.moving.record import Record
from minicloud.moving.recovery import Evidence, Lost, Unclear, what_was_lost

XML = "<domain><name>x</name></domain>"
PET = (
    "<domain><metadata><m:guest xmlns:m='https://nbdserve.org/minicloud/1' kind='pet' template='t'"
    " image='i' export='guest/x' created='2026-11-23T10:00:00Z'/></metadata></domain>"
)
ADDRESSES = {"10.0.0.1": "ham1", "10.0.0.2": "ham2", "10.0.0.3": "ham3"}


def of(*records, **evidence):
    kept = {name: Record(node, XML) for name, node in records}
    return Evidence(guests=sorted(kept), records=kept, addresses=ADDRESSES, **evidence)


def names(found):
    return [one.guest for one in found]


def test_a_guest_whose_disk_the_dead_node_holds_is_lost():
    lost, unclear = what_was_lost("ham1", of(("web1", "ham1"), clients={"web1": ["10.0.0.1"]}))

    assert lost == (Lost("web1", Record("ham1", XML)),)
    assert unclear == ()


def test_the_holder_is_believed_before_the_record():
    evidence = of(("web1", "ham2"), clients={"web1": ["10.0.0.1"]})  # moved there by virsh

    assert names(what_was_lost("ham1", evidence)[0]) == ["web1"]


def test_guests_that_run_and_guests_of_other_nodes_are_not_mentioned():
    evidence = of(("web1", "ham1"), ("web2", "ham2"), running={"web1": "ham2"})

    assert what_was_lost("ham1", evidence) == ((), ())


def test_a_guest_that_another_node_holds_is_left_alone():
    evidence = of(("web1", "ham1"), clients={"web1": ["10.0.0.1", "10.0.0.3"]})

    lost, unclear = what_was_lost("ham1", evidence)

    assert lost == ()
    assert unclear == (Unclear("web1", "its disk is in use from ham3"),)


def test_cattle_that_nobody_holds_may_have_ended_before():
    lost, _ = what_was_lost("ham1", of(("web1", "ham1")))

    assert "ended before" in lost[0].note


def test_a_pet_that_nobody_holds_is_simply_started():
    evidence = replace(of(("db", "ham1")), records={"db": Record("ham1", PET)})

    lost, _ = what_was_lost("ham1", evidence)

    assert names(lost) == ["db"]
    assert lost[0].note == ""


def test_a_holder_with_an_unknown_address_is_told():
    evidence = of(("web1", "ham1"), clients={"web1": ["192.168.7.1"]})  # a network for storage

    lost, _ = what_was_lost("ham1", evidence)

    assert "192.168.7.1" in lost[0].note


def test_a_holder_with_an_unknown_address_may_be_another_node_that_is_silent():
    evidence = of(("web1", "ham1"), clients={"web1": ["192.168.7.1"]}, silent=["ham3"])

    lost, unclear = what_was_lost("ham1", evidence)

    assert lost == ()
    assert unclear[0].why.startswith("its disk is in use from 192.168.7.1, which may be ham3; ")


def test_a_guest_without_a_record_cannot_be_started_and_is_told():
    evidence = Evidence(
        guests=["old"], records={}, clients={"old": ["10.0.0.1"]}, addresses=ADDRESSES
    )

    lost, unclear = what_was_lost("ham1", evidence)

    assert lost == ()
    assert "domain/old" in unclear[0].why


def test_a_guest_without_a_record_that_another_node_holds_is_not_mentioned():
    evidence = Evidence(
        guests=["old"], records={}, clients={"old": ["10.0.0.2"]}, addresses=ADDRESSES
    )

    assert what_was_lost("ham1", evidence) == ((), ())


def test_guests_of_another_silent_node_are_mentioned():
    evidence = of(("web1", "ham3"), silent=["ham3"])

    lost, unclear = what_was_lost("ham1", evidence)

    assert lost == ()
    assert unclear == (Unclear("web1", "it was on ham3, which does not answer either"),)
