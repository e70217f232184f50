"""Whether a guest can be made, and where, by what nodes and server said."""

import pytest

from bootfacts import export, guest, overlay, request
from minicloud.booting.survey import check_free, choose, survey_of
from minicloud.errors import NodeError, Reason, UsageError
from minicloud.model.guest import NodeFacts
from minicloud.model.inventory import Node
from minicloud.model.outcome import Row

GIB = 1 << 30
N1, N2, N3 = (Node(name=name, host=name, reserve=0) for name in ("n1", "n2", "n3"))


def row(name, memory, *guests):
    facts = NodeFacts(
        hostname=name, cpus=4, memory=memory, memory_available=None, libvirt=(9, 0, 0), qemu=None,
        guests=tuple(guests),
    )  # fmt: skip
    return Row(name, facts)


OFF = Row("n3", None, NodeError(Reason.OFF, "no route to it"))


def test_the_node_with_most_memory_is_chosen_and_one_that_is_off_is_told():
    survey = survey_of(request(), [row("n1", 2 * GIB), row("n2", 4 * GIB), OFF], [N1, N2, N3])
    assert choose(survey.placement) is N2
    assert survey.unknown == ("n3: no route to it; whether a guest web1 is there is not known",)
    assert survey.placement.scores[-1].reason == "no route to it"


def test_only_the_nodes_it_may_go_to_are_judged_but_all_are_asked():
    rows = [row("n1", 2 * GIB), row("n2", 4 * GIB)]
    assert choose(survey_of(request(), rows, [N1]).placement) is N1
    rows = [row("n1", 2 * GIB), row("n2", 4 * GIB, guest("web1"))]
    with pytest.raises(UsageError, match="there is a guest web1 on n2 already"):
        survey_of(request(), rows, [N1])


def test_no_node_takes_it():
    survey = survey_of(request(memory=8 * GIB), [row("n1", 2 * GIB), OFF], [N1, N3])
    with pytest.raises(UsageError, match=r"n1: needs 8.0G, has 2.0G free.*; n3: no route to it"):
        choose(survey.placement)


@pytest.mark.parametrize(
    ("exports", "overlays", "words"),
    [
        ([export("guest/web1")], [], "disk of a guest web1 is still served, .* off"),
        ([export("seed/web1")], [], "seed/web1 of a guest web1 is still served"),
        ([], [overlay("web1.cow")], r"former guest web1 is still kept in /o/web1\.cow"),
    ],
)
def test_what_is_left_of_another_guest_of_that_name_is_in_the_way(exports, overlays, words):
    with pytest.raises(UsageError, match=words):
        check_free("web1", exports, overlays)


def test_what_others_left_is_not():
    check_free("web1", [export("guest/web2"), export("debian")], [overlay("web12.cow")])
