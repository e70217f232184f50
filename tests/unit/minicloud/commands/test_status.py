"""What `status` shows."""

from minicloud.commands.status import status_outcome
from minicloud.errors import NodeError, Reason
from minicloud.model.guest import Guest, GuestState, NodeFacts
from minicloud.model.inventory import Node
from minicloud.model.outcome import Row
from minicloud.render.output import print_outcome

G = 1 << 30


def guest(name, vcpus, memory, state=GuestState.RUNNING):
    return Guest(
        name=name, uuid=name, node="ham0", state=state, vcpus=vcpus, memory=memory,
        is_active=state is not GuestState.SHUTOFF, is_persistent=True,
    )  # fmt: skip


def facts(cpus, memory, *guests):
    return NodeFacts(
        hostname="h", cpus=cpus, memory=memory, memory_available=5 * G, libvirt=(9, 0, 0),
        qemu=(7, 2, 22), guests=guests,
    )  # fmt: skip


NODES = {name: Node(name=name, host=name) for name in ("ham0", "ham1", "ham2", "ham3")}
ROWS = [
    Row("ham0", facts(8, int(15.2 * G), guest("a", 4, 4 * G), guest("b", 4, 4 * G),
                      guest("off", 64, 64 * G, GuestState.SHUTOFF))),
    Row("ham1", facts(4, int(15.2 * G)), note="by virsh"),
    Row("ham2", error=NodeError(Reason.OFF, "off: no route to host", "wake it")),
    Row("ham3", error=NodeError(Reason.REFUSED, "ham3 is up, but nothing listens", "start sshd")),
]  # fmt: skip

# the figures of the announcement of mclu 2.0, and why a node does not answer
SHOWN = """\
ham0   on
       total: 8pcpus 15.2G
        used: 8vcpus 8.0G by 2 guest(s)
        free: 6.2G
ham1   on (by virsh)
       total: 4pcpus 15.2G
        free: 14.2G
ham2   off
ham3   refused: ham3 is up, but nothing listens; start sshd
"""


def test_what_is_printed(capsys):
    print_outcome(status_outcome(ROWS, NODES), as_json=False)
    assert capsys.readouterr().out == SHOWN


def test_the_document_has_all_of_it():
    document = status_outcome(ROWS, NODES).document
    first, _, off, _ = document["nodes"]
    assert first["free"] == {"memory": int(15.2 * G) - 9 * G, "available": 5 * G}
    assert first["used"] == {"vcpus": 8, "memory": 8 * G, "guests": 2}
    assert (first["state"], first["libvirt"], first["qemu"]) == ("on", "9.0.0", "7.2.22")
    assert off["state"] == "off"
    assert [error["reason"] for error in document["errors"]] == ["off", "refused"]
    assert document["errors"][1]["remedy"] == "start sshd"


def test_the_status_says_whether_all_some_or_none_answered():
    assert status_outcome(ROWS[:2], NODES).status == 0
    assert status_outcome(ROWS, NODES).status == 1
    assert status_outcome(ROWS[2:], NODES).status == 2
    assert status_outcome([], NODES).status == 2
