"""What `minicloud doctor` shows of its checks, and its exit status."""

from minicloud.commands.doctor import doctor_outcome
from minicloud.doctor.check import Subject

HAM = Subject("ham1")
CHECKS = [
    Subject("inventory").good("read", "/m.toml"),
    HAM.good("name", "10.0.0.1"),
    HAM.failed("tcp", "nothing listens", "start sshd"),
    HAM.skipped("ssh", "tcp failed"),
    HAM.skipped("login", "tcp failed"),
    Subject("nbd").skipped("state", "control failed"),
]


def test_checks_stand_beneath_their_subject_and_remedies_beneath_them():
    [view] = doctor_outcome(CHECKS, is_usable=True).views
    assert view.lines == (
        "inventory",
        "  ok       read       /m.toml",
        "ham1",
        "  ok       name       10.0.0.1",
        "  failed   tcp        nothing listens",
        "                      -> start sshd",
        "  skipped  2 checks   tcp failed",
        "nbd",
        "  skipped  state      control failed",
        "2 ok, 1 failed, 3 skipped",
    )


def test_the_document_has_every_check_and_the_failures_as_errors():
    document = doctor_outcome(CHECKS, is_usable=True).document
    assert len(document["checks"]) == len(CHECKS)
    assert document["checks"][2] == {
        "subject": "ham1", "check": "tcp", "status": "failed", "text": "nothing listens",
        "remedy": "start sshd",
    }  # fmt: skip
    assert document["errors"] == [
        {"node": "ham1", "reason": "tcp", "message": "nothing listens", "remedy": "start sshd"}
    ]


def test_the_status_is_that_of_failures_and_warnings_are_none():
    warned = [HAM.warning("clock", "2 s behind"), HAM.good("name", "x")]
    assert doctor_outcome(warned, is_usable=True).status == 0
    assert doctor_outcome(CHECKS * 2, is_usable=True).status == 1
    assert doctor_outcome(CHECKS, is_usable=False).status == 2
