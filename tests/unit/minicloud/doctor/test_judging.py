"""All checks of a node together, and those of the inventory."""

from pathlib import Path

from examined import by_name, exam_of, inventory_of
from minicloud.doctor.check import Status
from minicloud.doctor.customizing import check_customize
from minicloud.doctor.judging import check_inventory, check_node
from minicloud.doctor.survey import Survey
from minicloud.errors import NodeError, Reason
from minicloud.model.inventory import Inventory, Node


def test_a_node_that_lets_nobody_in_has_every_check_of_one_that_does():
    inventory = inventory_of("ham1")
    whole = by_name(check_node(exam_of(), inventory))
    off = by_name(check_node(exam_of(access=NodeError(Reason.OFF, "off")), inventory))
    assert set(whole) == set(off)
    after = list(off)[2:]
    assert {off[name].status for name in after} == {Status.SKIPPED}
    assert {off[name].text for name in after} == {"tcp failed"}


def test_a_node_of_which_nothing_came_is_judged_all_the_same():
    nothing = exam_of(
        survey=None, clock=None, opened="", sockets=None, abilities=None, boots=None, probe=None
    )
    found = by_name(check_node(nothing, inventory_of("ham1")))
    assert found["login"].status is Status.OK
    assert found["socket"].status is Status.FAILED
    assert "within the time" in found["socket"].text
    assert found["exports"].status is Status.FAILED


def test_an_inventory_is_told_with_its_warnings():
    nodes = {name: Node(name=name, host="same") for name in ("ham1", "ham2")}
    found = by_name(list(check_inventory(Inventory(file=Path("/m.toml"), nodes=nodes))))
    assert found["read"].text == "/m.toml: 2 node(s), 0 template(s)"
    assert "one host" in found["warning 1"].text
    assert found["nbd"].status is Status.WARNING


def test_an_inventory_without_nodes_fails():
    found = by_name(list(check_inventory(Inventory(file=Path("/m.toml"), nodes={}))))
    assert found["nodes"].status is Status.FAILED


def test_one_machine_with_virt_customize_will_do():
    with_it = exam_of(survey=Survey(tools={"virt-customize"}))
    assert check_customize([exam_of(), with_it], is_here=False).text == "on ham1"
    assert check_customize([exam_of()], is_here=True).text == "on this machine"
    missing = check_customize([exam_of()], is_here=False)
    assert missing.status is Status.WARNING
    assert "guestfs-tools" in missing.remedy
