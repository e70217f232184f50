"""What `minicloud doctor` shows of its checks, and its exit status."""

from examined import NBD, exam_of
from minicloud.commands.doctor import doctor_outcome, server_checks
from minicloud.doctor.check import Status, Subject
from minicloud.errors import NodeError, Reason, StorageError

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


DOWN = StorageError("unreachable", "nobody there; start it")


def test_one_server_for_all_is_judged_whatever_the_nodes_are():
    checks = list(server_checks(NBD, {"": DOWN}, {"ham1": exam_of()}))
    assert {check.subject for check in checks} == {"nbd"}
    assert checks[0].status is Status.FAILED


def test_the_server_of_a_node_that_let_nobody_in_is_not_accused():
    off = exam_of(access=NodeError(Reason.OFF, "off"))
    checks = list(
        server_checks(NBD, {"ham1": DOWN, "ham2": DOWN}, {"ham1": off, "ham2": exam_of()})
    )
    status = {(check.subject, check.name): check.status for check in checks}
    assert status["nbd of ham1", "control"] is Status.SKIPPED
    assert status["nbd of ham2", "control"] is Status.FAILED
