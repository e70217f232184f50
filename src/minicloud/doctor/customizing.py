"""Where guests' disks can be customized: one machine with virt-customize will do. Pure."""

from collections.abc import Sequence

from minicloud.doctor.check import Check, Subject
from minicloud.doctor.exam import Exam
from minicloud.doctor.survey import CUSTOMIZE, Survey

__all__ = ["check_customize"]

_INSTALL = "dnf install guestfs-tools, or apt install guestfs-tools, here or on a node"


def check_customize(exams: Sequence[Exam], *, is_here: bool) -> Check:
    """Tell where virt-customize is.

    Args:
        exams: of the nodes.
        is_here: it is on this machine.
    """
    subject = Subject("customize")
    places = ["this machine"] if is_here else []
    places += [
        exam.node.name
        for exam in exams
        if isinstance(exam.survey, Survey) and CUSTOMIZE in exam.survey.tools
    ]
    if places:
        return subject.good(CUSTOMIZE, f"on {', '.join(places)}")
    return subject.warning(
        CUSTOMIZE, "on no machine: `minicloud customize` and `customize` of templates cannot work",
        _INSTALL,
    )  # fmt: skip
