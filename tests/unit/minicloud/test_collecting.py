"""What is left over, and what only looks like it."""

from dataclasses import replace

from bootfacts import export, guest, overlay
from minicloud.collecting import leftovers, owners, remains_of, strangers
from minicloud.moving.record import Record, record_export


def names(found):
    return [one.guest for one in found]


def test_a_guest_that_is_gone_leaves_its_exports_and_its_overlay():
    exports = [export("guest/a"), export("seed/a"), export("domain/a"), export("guest/b")]
    overlays = [overlay("a.cow", export="guest/a"), overlay("b.cow", export="guest/b")]
    (found,) = leftovers(exports, overlays, frozenset({"b"}))
    assert found.guest == "a"
    assert found.exports == ("domain/a", "guest/a", "seed/a")
    assert (found.overlay, found.size) == ("/o/a.cow", 100)


def test_an_overlay_alone_is_left_over_too():
    (found,) = leftovers([], [overlay("a.cow")], frozenset())
    assert (found.exports, found.overlay) == ((), "/o/a.cow")


def test_a_probe_that_was_cut_off_is_left_over():
    (found,) = leftovers([export("probe/minicloud-probe-1")], [], frozenset())
    assert found.exports == ("probe/minicloud-probe-1",)


def test_what_somebody_else_made_or_uses_is_not():
    exports = [
        export("debian"),
        export("guest/not a guest"),
        export("guest/configured", is_added=False),
        export("guest/used", connections=1),
    ]
    overlays = [
        overlay("used.cow", export="guest/used"),
        overlay("byhand.cow", export="mine"),
        overlay("notes.txt"),
    ]
    assert names(leftovers(exports, overlays, frozenset())) == []


def test_a_renamed_domain_still_owns_what_it_was_made_with():
    owned = owners([guest("new", made_as="guest/old"), guest("foreign")])
    assert owned == {"new", "old", "foreign"}
    assert leftovers([export("guest/old"), export("guest/foreign")], [], owned) == []


def test_a_guest_put_on_a_node_of_another_inventory_is_a_stranger():
    def described(guest, node):
        table = record_export(guest, Record(node, "<domain/>"))
        return replace(export(table["name"]), description=table["description"])

    exports = [described("a", "ham0"), described("b", "ham9"), export("guest/c")]
    assert strangers(exports, {"ham0": None}) == {"b": "ham9"}


def test_what_is_left_of_one_guest_by_its_name():
    exports = [export("guest/a", connections=1), export("guest/ab")]
    found = remains_of("a", exports, [overlay("a.cow", export="guest/a"), overlay("ab.cow")])
    assert (found.exports, found.overlay, found.clients) == (("guest/a",), "/o/a.cow", 1)
    assert remains_of("c", exports, []).exports == ()


def test_the_age_is_of_what_was_added_last():
    exports = [export("guest/a", age=900.0), export("seed/a", age=3.0), export("domain/a")]
    assert remains_of("a", exports, []).age == 3.0
    assert remains_of("b", [export("guest/b")], []).age is None
