"""`minicloud gc` on the lab: it finds exactly the orphans, and nothing while a node is silent."""

import pytest

from leftbehind import domains, exports, overlays
from minicloud_command import minicloud


@pytest.fixture
def remains(lab, inventory, export_server, tiny_image):
    """Two guests alive, one on each of two nodes; one that ended; and things not minicloud's."""
    for target in ("n1:alive", "n2:ended", "n2:rex"):
        words = ["--pet"] if target.endswith("rex") else []
        told = minicloud("boot", "tiny", target, "--hostname", "www", *words)
        assert told.status == 0, told
        if target == "n1:alive":  # else it would power off once it has booted
            lab.nodes[1].run(["virsh", "-q", "suspend", "alive"])
    lab.nodes[2].run(["virsh", "-q", "destroy", "ended"])
    lab.nodes[2].run(["virsh", "-q", "destroy", "rex"])  # shut off, and still defined
    export_server.add("mine", "file", tiny_image)
    overlay = export_server.overlays / "mine.cow"
    export_server.add("guest/no name", "--layer", f"cow:path={overlay}", "file", tiny_image)
    (export_server.overlays / "notes.txt").write_text("not an overlay")


OURS = {
    f"{what}/{name}" for what in ("guest", "seed", "domain") for name in ("alive", "ended", "rex")
}
ORPHANS = {"guest/ended", "seed/ended", "domain/ended"}


def test_gc_finds_exactly_the_orphans(lab, export_server, remains):
    before = exports(export_server)
    assert before > OURS
    told = minicloud("gc", "--json", "--min-age", "0")
    assert told.status == 0, told
    (found,) = told.document["leftovers"]
    assert set(found["exports"]) == ORPHANS
    assert found["overlay"] == str(export_server.overlays / "ended.cow")
    assert found["bytes"] > 0
    assert exports(export_server) == before, "nobody said yes"

    told = minicloud("gc", "--yes", "--min-age", "0")
    assert told.status == 0, told
    assert before - exports(export_server) == ORPHANS
    assert overlays(export_server) == {"alive.cow", "rex.cow", "mine.cow", "notes.txt"}
    assert domains(lab) == {"n1:alive", "n2:rex"}
    assert "nothing is left over" in minicloud("gc", "--min-age", "0").out


def test_gc_leaves_alone_what_a_boot_may_be_making(lab, export_server, remains):
    before = exports(export_server), overlays(export_server)
    told = minicloud("gc", "--yes", "--json")
    assert told.status == 0, told
    assert told.document["leftovers"] == []
    (young,) = told.document["young"]
    assert (set(young["exports"]), young["state"]) == (ORPHANS, "young")
    assert (exports(export_server), overlays(export_server)) == before
    assert "a boot may be under way" in minicloud("gc", "--yes").out

    export_server.stop()
    export_server.start()  # it kept when they were made
    assert minicloud("gc", "--yes", "--json").document["young"][0]["guest"] == "ended"


def test_gc_removes_nothing_while_a_node_is_off(lab, export_server, remains):
    before = exports(export_server), overlays(export_server)
    lab.nodes[3].off()
    told = minicloud("gc", "--yes", "--min-age", "0")
    assert told.status == 2
    assert "n3: " in told.err
    assert "nothing is removed" in told.err
    assert (exports(export_server), overlays(export_server)) == before
