"""What `list` shows."""

from datetime import UTC, datetime

from minicloud.commands.list import Listing, list_outcome
from minicloud.errors import NodeError, Reason
from minicloud.model.address import Address, AddressSource
from minicloud.model.guest import Guest, GuestKind, GuestState, Origin
from minicloud.model.outcome import Row
from minicloud.render.output import print_outcome

NOW = datetime(2026, 1, 13, tzinfo=UTC)
LEASED = Address(
    address="10.0.0.7", prefix=24, mac="", interface="", sources=(AddressSource.LEASE,)
)  # fmt: skip
ORIGIN = Origin(
    kind=GuestKind.CATTLE, template="deb", image="https://img/deb.raw.xz", export="guest/web1",
    seed=None, created=datetime(2026, 1, 1, tzinfo=UTC), user="ruth@desk",
)  # fmt: skip


def guest(name, node, state, reason="", origin=None):
    return Guest(
        name=name, uuid=f"{node}/{name}", node=node, state=state, reason=reason, vcpus=2,
        memory=1 << 30, is_active=True, is_persistent=False, origin=origin,
    )  # fmt: skip


ROWS = [
    Row("ham1", Listing(
        (guest("web1", "ham1", GuestState.RUNNING, "booted", ORIGIN),
         guest("db", "ham1", GuestState.PAUSED, "I/O error")),
        {"ham1/web1": LEASED},
    )),
    Row("ham2", error=NodeError(Reason.OFF, "off: no route to host")),
]  # fmt: skip

SHOWN = """\
GUEST  STATE               NODE  VCPUS  MEMORY  IP        IMAGE       AGE  KIND
db     paused (I/O error)  ham1      2    1.0G  -         -             -  -
web1   running             ham1      2    1.0G  10.0.0.7  deb.raw.xz  12d  cattle
"""


def test_what_is_printed(capsys):
    print_outcome(list_outcome(ROWS, NOW), as_json=False)
    printed = capsys.readouterr()
    assert printed.out == SHOWN
    assert printed.err == "minicloud: ham2: off: no route to host\n"


def test_the_document_has_all_of_it():
    document = list_outcome(ROWS, NOW).document
    db, web1 = document["guests"]
    assert (web1["ip"], web1["ip_source"], web1["kind"]) == ("10.0.0.7", "lease", "cattle")
    assert (web1["age_seconds"], web1["export"]) == (12 * 86400, "guest/web1")
    assert (db["ip"], db["reason"]) == (None, "I/O error")
    assert document["errors"][0]["node"] == "ham2"


def test_the_status_is_partial_where_a_node_did_not_answer():
    assert list_outcome(ROWS, NOW).status == 1
    assert list_outcome(ROWS[:1], NOW).status == 0
