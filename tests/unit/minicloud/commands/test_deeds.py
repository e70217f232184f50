import pytest

from guestfacts import guest
from minicloud.commands.deeds import Deed, _Row, deeds_outcome
from minicloud.errors import NodeError, Reason, StorageError, UsageError
from minicloud.model.view import Lines

DONE = _Row("web1", guest(), deed=Deed("stopped", "off after 3.2 s", 3.21987))
GONE = _Row("web2", None, error=UsageError("there is no guest web2; did you mean web1?"))
BROKEN = _Row("db", guest(name="db"), error=NodeError(Reason.LIBVIRT, "no", "try again"))


def test_what_was_done_is_a_line_and_a_row():
    outcome = deeds_outcome([DONE])
    assert outcome.views == [Lines(("web1 on ham1: off after 3.2 s",))]
    assert outcome.errors == []
    assert outcome.document == {
        "guests": [
            {"name": "web1", "uuid": guest().uuid, "node": "ham1", "did": "stopped",
             "message": "off after 3.2 s", "seconds": 3.22}
        ],
        "errors": [],
    }  # fmt: skip


def test_a_guest_for_which_it_failed_hides_no_other():
    outcome = deeds_outcome([GONE, DONE, BROKEN])
    assert outcome.views == [Lines(("web1 on ham1: off after 3.2 s",))]
    assert outcome.errors == [
        "there is no guest web2; did you mean web1?", "db on ham1: no; try again",
    ]  # fmt: skip
    assert outcome.document["errors"] == [
        {"guest": "web2", "node": None, "reason": "usage", "remedy": "",
         "message": "there is no guest web2; did you mean web1?"},
        {"guest": "db", "node": "ham1", "reason": "libvirt", "message": "no",
         "remedy": "try again"},
    ]  # fmt: skip


def test_the_export_servers_failures_have_their_own_reasons():
    row = _Row("web1", guest(), error=StorageError("busy", "in use"))
    assert deeds_outcome([row]).document["errors"][0]["reason"] == "storage-busy"


@pytest.mark.parametrize(
    ("rows", "status"), [([DONE, DONE], 0), ([DONE, GONE], 1), ([GONE, BROKEN], 2)]
)
def test_the_status_says_all_some_or_none(rows, status):
    assert deeds_outcome(rows).status == status
