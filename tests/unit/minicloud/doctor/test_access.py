"""One error tells at which step of ssh it was: those before went well, those after are skipped."""

import dataclasses

import pytest

from examined import ACCESS, by_name, exam_of
from minicloud.doctor.access import STEPS, check_access
from minicloud.doctor.check import Status
from minicloud.errors import NodeError, Reason, UsageError


def judged(**found):
    return by_name(list(check_access(exam_of(**found))))


@pytest.mark.parametrize(
    ("reason", "step"),
    [
        (Reason.NAME, "name"),
        (Reason.OFF, "tcp"),
        (Reason.UNREACHABLE, "tcp"),
        (Reason.REFUSED, "tcp"),
        (Reason.DEADLINE, "tcp"),
        (Reason.NO_SSH, "ssh"),
        (Reason.KEY_NEW, "host-key"),
        (Reason.KEY_CHANGED, "host-key"),
        (Reason.AUTH, "login"),
        (Reason.SSH_LOST, "login"),
    ],
)
def test_an_error_is_put_where_it_was(reason, step):
    found = judged(access=NodeError(reason, "it is so", "do this"))
    at = STEPS.index(step)
    assert [found[name].status for name in STEPS] == [
        *[Status.OK] * at, Status.FAILED, *[Status.SKIPPED] * (len(STEPS) - at - 1),
    ]  # fmt: skip
    assert (found[step].text, found[step].remedy) == ("it is so", "do this")
    assert all(found[name].text == f"{step} failed" for name in STEPS[at + 1 :])


@pytest.mark.parametrize("reason", Reason)
def test_every_failure_has_a_remedy(reason):
    [failed] = [one for one in judged(access=NodeError(reason, "it is so")).values()
                if one.status is Status.FAILED]  # fmt: skip
    assert failed.remedy


def test_a_node_whose_time_was_over_has_failed():
    assert judged(access=None)["tcp"].status is Status.FAILED


def test_an_ssh_config_that_cannot_be_used_is_told_with_its_file():
    error = UsageError("leads in a circle; take one out", file="/ssh_config")
    found = judged(access=error)
    assert found["name"].text == "/ssh_config: leads in a circle"
    assert found["name"].remedy == "take one out"


def test_a_login_tells_each_step():
    found = judged()
    assert {check.status for check in found.values()} == {Status.OK}
    assert found["name"].text == "ham1.lan is 10.0.0.1"
    assert found["host-key"].text == "ssh-ed25519 SHA256:abc, known in /known:3"
    assert found["login"].text == "as root by ssh-ed25519 key of the agent (ruth)"


def test_a_new_host_key_is_to_be_compared():
    access = dataclasses.replace(ACCESS, known_at="")
    found = judged(access=access, note="new host key SHA256:abc")
    assert found["host-key"].status is Status.WARNING
    assert "ssh-keygen" in found["host-key"].remedy


def test_a_proxy_command_leaves_no_address():
    found = judged(access=dataclasses.replace(ACCESS, address="", port=0))
    assert found["name"].text == "ham1.lan, which a ProxyCommand leads to"
