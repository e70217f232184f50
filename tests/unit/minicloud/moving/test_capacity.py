"""Where guests go that leave a node."""

from minicloud.moving.capacity import Lack, Load, emptiest, plan_places

G = 1 << 30


def test_guests_are_spread_the_largest_first():
    plan = plan_places(
        [Load("a", 1 * G), Load("b", 4 * G), Load("c", 2 * G)], {"x": 8 * G, "y": 7 * G}
    )

    assert plan.places == {"b": "x", "c": "y", "a": "y"}
    assert list(plan.places) == ["b", "c", "a"]
    assert plan.free == {"x": 4 * G, "y": 4 * G}
    assert plan.lacking == ()


def test_guests_are_packed_where_spreading_leaves_somebody_out():
    loads = [Load("big", 6 * G), Load("a", 2 * G), Load("b", 2 * G), Load("c", 2 * G)]

    plan = plan_places(loads, {"x": 7 * G, "y": 6 * G})

    assert plan.lacking == ()
    assert sorted(plan.places) == ["a", "b", "big", "c"]


def test_what_is_lacking_is_told_in_numbers():
    plan = plan_places([Load("a", 3 * G), Load("b", 3 * G)], {"x": 4 * G})

    assert plan.lacking == (Lack("b", 3 * G, "x", 1 * G),)
    assert str(plan.lacking[0]) == "b needs 3072 MiB, and at most 1024 MiB are left, on x"


def test_without_another_node_nobody_has_a_place():
    plan = plan_places([Load("a", G)], {})

    assert str(plan.lacking[0]) == "a needs 1024 MiB, and there is no other node"


def test_a_guest_that_does_not_run_needs_no_room():
    assert plan_places([Load("off", 0)], {"x": 0}).places == {"off": "x"}


def test_a_node_that_is_overcommitted_takes_nobody():
    assert plan_places([Load("off", 0)], {"x": -G}).lacking


def test_the_emptiest_node_that_fits_is_chosen_and_the_first_of_equals():
    free = {"x": 2 * G, "y": 4 * G, "z": 4 * G}

    assert emptiest(G, free) == "y"
    assert emptiest(G, free, but={"y"}) == "z"
    assert emptiest(5 * G, free) is None
