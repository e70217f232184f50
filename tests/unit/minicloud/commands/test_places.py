"""A node for a guest: the planned one, or the next that has room and takes it."""

from minicloud.commands.places import find_place
from minicloud.errors import NodeError, Reason
from minicloud.moving.finding import good, problem

G = 1 << 30


def saying(**answers):
    """A check that says what is given for each node, and what it was asked."""
    asked = []

    async def check(name):
        asked.append(name)
        answer = answers.get(name, (good("x", "fine"),))
        if isinstance(answer, Exception):
            raise answer
        return answer

    return check, asked


async def test_the_planned_node_is_taken_and_its_room_with_it():
    free = {"a": 2 * G, "b": 4 * G}
    check, asked = saying()

    assert await find_place(G, free, "a", check) == ("a", "")
    assert asked == ["a"]
    assert free == {"a": G, "b": 4 * G}


async def test_a_node_that_refuses_is_passed_over_for_the_next_emptiest():
    free = {"a": 4 * G, "b": 2 * G, "c": 3 * G}
    check, asked = saying(
        a=(good("x", "fine"), problem("cpu", "a lacks avx2")), c=NodeError(Reason.OFF, "off")
    )

    assert await find_place(G, free, "a", check) == ("b", "")
    assert asked == ["a", "c", "b"]
    assert free["a"] == 4 * G


async def test_where_all_refuse_each_reason_is_told():
    check, _ = saying(
        a=(problem("cpu", "a lacks avx2", "buy one"),), b=NodeError(Reason.OFF, "off")
    )

    node, why = await find_place(G, {"a": 4 * G, "b": 3 * G}, "a", check)

    assert node is None
    assert why == "a lacks avx2; buy one; b: off"


async def test_a_planned_node_that_is_full_by_now_is_not_asked():
    check, asked = saying()

    assert await find_place(2 * G, {"a": G, "b": 3 * G}, "a", check) == ("b", "")
    assert asked == ["b"]


async def test_without_room_nobody_is_asked():
    check, asked = saying()

    node, why = await find_place(2 * G, {"a": G}, None, check)

    assert (node, why) == (None, "no node that answers has room for it")
    assert asked == []
