"""The steps of ssh: name, TCP, sshd's greeting, host key, login. Pure.

Connecting gives one error; its reason tells at which step it was, and so that those before it went
well.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from minicloud.doctor.check import Check, Subject, tidied
from minicloud.doctor.exam import Exam, came
from minicloud.errors import MinicloudError, NodeError, Reason
from minicloud.model.inventory import Node
from minicloud.ssh.access import Access

__all__ = ["STEPS", "check_access"]

STEPS: Final = ("name", "tcp", "ssh", "host-key", "login")

_STEP_OF: Final[Mapping[Reason, str]] = {
    Reason.NAME: "name",
    Reason.OFF: "tcp",
    Reason.UNREACHABLE: "tcp",
    Reason.REFUSED: "tcp",
    Reason.DEADLINE: "tcp",
    Reason.NO_FORWARDING: "tcp",  # of a jump host
    Reason.NO_SSH: "ssh",
    Reason.KEY_NEW: "host-key",
    Reason.KEY_CHANGED: "host-key",
}

_REMEDIES: Final[Mapping[Reason, str]] = {
    Reason.OFF: "switch it on; with `mac` in the inventory minicloud can wake it",
    Reason.UNREACHABLE: "is it up, and does a firewall let ssh in?",
}


def check_access(exam: Exam) -> Iterator[Check]:
    """Judge the steps up to the login."""
    subject = Subject(exam.node.name)
    match came(exam.access):
        case Access() as access:
            yield from _went_well(subject, exam, access)
        case MinicloudError() as error:
            yield from _went_wrong(subject, exam.node, error)


def _went_well(subject: Subject, exam: Exam, access: Access) -> Iterator[Check]:
    yield subject.good("name", _place(exam.node.host, access.address))
    yield subject.good("tcp", f"port {access.port}" if access.port else "through a ProxyCommand")
    yield subject.good("ssh", access.software)
    if access.known_at:
        yield subject.good("host-key", f"{access.host_key}, known in {access.known_at}")
    elif exam.note:
        yield subject.warning(
            "host-key", f"{access.host_key} was new, and is kept",
            "compare it once: ssh-keygen -lf on the node's /etc/ssh/ssh_host_*_key.pub",
        )  # fmt: skip
    else:
        yield subject.good("host-key", f"{access.host_key}, by a certificate or another's name")
    yield subject.good("login", f"as {access.user} by {access.key or 'no key'}")


def _place(host: str, address: str) -> str:
    if not address:
        return f"{host}, which a ProxyCommand leads to"
    return address if host == address else f"{host} is {address}"


def _went_wrong(subject: Subject, node: Node, error: MinicloudError) -> Iterator[Check]:
    reason = error.reason if isinstance(error, NodeError) else None
    failed = "name" if reason is None else _STEP_OF.get(reason, "login")
    for step in STEPS[: STEPS.index(failed)]:
        yield subject.good(step, _passed(step, node))
    if isinstance(error, NodeError):
        text, remedy = error.message, error.remedy
        yield subject.failed(failed, text, remedy or _REMEDIES.get(error.reason, "see ssh -v"))
    else:
        text, remedy = tidied(str(error))
        yield subject.failed(failed, text, remedy or "correct ssh_config")
    for step in STEPS[STEPS.index(failed) + 1 :]:
        yield subject.skipped(step, f"{failed} failed")


def _passed(step: str, node: Node) -> str:
    return {
        "name": f"{node.host} has an address",
        "tcp": "sshd's port accepts connections",
        "ssh": "sshd speaks",
        "host-key": "its host key is the known one",
    }[step]
