"""Networks, exports and other nodes, as a node reaches them."""

import pytest

from examined import NBD, abilities, by_name, exam_of, inventory_of
from minicloud.doctor.check import Status
from minicloud.doctor.reach import (
    bridges,
    check_exports,
    check_migration,
    check_networks,
    reaches_exports,
    wanted,
)
from minicloud.errors import NodeError, Reason
from minicloud.model.inventory import Bus, Defaults, NbdService, Node, Template
from minicloud.moving.probe import Probe, Reach

LOCAL = NbdService(address="localhost", socket="/run/nbd.sock")
LATE = NodeError(Reason.COMMAND, "`sh` did not end within 12 s")


def template(name, network):
    return Template(
        name=name, image=("x",), memory=1 << 30, vcpus=1, bus=Bus.VIRTIO, network=network
    )


def of(*templates, network="network:default"):
    return inventory_of(
        templates={one.name: one for one in templates}, defaults=Defaults(network=network)
    )


def test_the_networks_of_templates_and_defaults_are_wanted():
    found = wanted(of(template("deb", "bridge:br0"), template("fed", "bridge:br0")))
    assert found == {"bridge:br0": ["deb", "fed"], "network:default": []}
    assert bridges(found) == ["br0"]


def test_where_no_guest_is_made_no_network_is_wanted():
    assert wanted(inventory_of(nbd=None)) == {}


@pytest.mark.parametrize(
    ("is_there", "status"), [(True, Status.OK), (False, Status.FAILED), (None, Status.WARNING)]
)
def test_a_bridge_is_there_or_not(is_there, status):
    probe = Probe(bridges={} if is_there is None else {"br0": is_there})
    found = by_name(list(check_networks(exam_of(probe=probe), {"bridge:br0": ["deb"]})))
    assert found["bridge br0"].status is status


def test_a_network_of_libvirts_has_to_be_active():
    networks = {"network:default": ["deb"]}
    [found] = check_networks(exam_of(), networks)
    assert found.status is Status.OK
    [found] = check_networks(exam_of(abilities=abilities(())), networks)
    assert found.status is Status.FAILED
    assert "virsh net-start default" in found.remedy
    [found] = check_networks(exam_of(abilities=LATE), networks)
    assert found.status is Status.SKIPPED


def test_a_default_that_no_template_uses_is_only_warned_of():
    networks = wanted(of(template("deb", "user")))
    [found] = check_networks(exam_of(abilities=abilities(())), networks)
    assert (found.name, found.status) == ("network default", Status.WARNING)
    [found] = check_networks(exam_of(abilities=abilities(())), wanted(of()))
    assert found.status is Status.FAILED


@pytest.mark.parametrize(
    ("reach", "status", "remedy"),
    [
        (Reach.OPEN, Status.OK, ""),
        (Reach.REFUSED, Status.FAILED, "--bind nbd.lan --port 10809"),
        (Reach.SILENT, Status.FAILED, "let TCP port 10809"),
        (Reach.NO_NAME, Status.FAILED, "every node knows"),
        (Reach.UNKNOWN, Status.WARNING, "install"),
    ],
)
def test_the_exports_are_reached_from_the_node(reach, status, remedy):
    exam = exam_of(probe=Probe(addresses={("nbd.lan", 10809): reach}))
    [found] = check_exports(exam, NBD)
    assert found.status is status
    assert remedy in found.remedy
    assert reaches_exports(exam, NBD) is (reach is Reach.OPEN)


@pytest.mark.parametrize(
    ("answer", "status"), [(True, Status.OK), (False, Status.FAILED), (LATE, Status.FAILED)]
)
def test_exports_of_the_nodes_own_answer_at_their_socket(answer, status):
    exam = exam_of(nbd=answer)
    [found] = check_exports(exam, LOCAL)
    assert found.status is status
    assert "/run/nbd.sock" in found.text
    assert reaches_exports(exam, LOCAL) is (answer is True)


def migration(**ways):
    inventory = inventory_of("ham1", "ham2")
    return by_name(list(check_migration(exam_of(**ways), inventory)))


@pytest.mark.parametrize(
    ("reach", "status"),
    [
        (Reach.OPEN, Status.OK),
        (Reach.REFUSED, Status.OK),  # nothing listens until a guest comes
        (Reach.SILENT, Status.FAILED),
        (Reach.NO_ROUTE, Status.FAILED),
        (Reach.UNKNOWN, Status.WARNING),
    ],
)
def test_a_migration_port_only_has_to_answer(reach, status):
    probe = Probe(addresses={("ham2.lan", 49152): reach})
    found = migration(migration={"ham2": probe})["migration to ham2"]
    assert found.status is status
    assert "ham2.lan port 49152" in found.text


def test_a_way_that_took_too_long_is_not_known():
    assert migration(migration={"ham2": LATE})["migration to ham2"].status is Status.WARNING
    assert migration(migration={"ham2": None})["migration to ham2"].status is Status.WARNING


def test_no_way_is_tried_where_there_is_none():
    assert migration()["migration"].status is Status.SKIPPED
    inventory = inventory_of("ham1", "ham2", nbd=LOCAL)
    [found] = check_migration(exam_of(), inventory)
    assert "its own" in found.text


def test_other_nodes_may_reach_a_node_by_another_name():
    node = Node(name="ham2", host="ham2.lan", migrate_host="10.9.0.2")
    probe = Probe(addresses={("10.9.0.2", 49152): Reach.OPEN})
    inventory = inventory_of("ham1")
    [found] = check_migration(exam_of(migration={"ham2": probe}), _with(inventory, node))
    assert found.status is Status.OK


def _with(inventory, node):
    inventory.nodes[node.name] = node
    return inventory
