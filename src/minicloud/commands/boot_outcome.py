"""What `minicloud boot` has to tell, as values."""

from dataclasses import dataclass, field
from typing import Any

from minicloud.booting.survey import Survey
from minicloud.commands.boot_options import Asked
from minicloud.customization.prepared import Applied
from minicloud.domain.plan import GuestPlan
from minicloud.domain.xml import domain_xml, reconnect_kept
from minicloud.errors import NodeError
from minicloud.hypervisor.domains import Made
from minicloud.model.inventory import Node
from minicloud.model.sizes import size_text
from minicloud.model.view import Lines, Outcome, Table, View
from minicloud.placement import Placement

__all__ = ["Story", "boot_outcome"]


@dataclass(slots=True)
class Story:
    """What came of it so far; grows as the command goes on.

    Attributes:
        asked: for.
        survey: of the nodes.
        node: that was chosen.
        plan: of the guest.
        made: of it, by libvirt.
        customized: what virt-customize did to its disk, if the template asks for that.
        seen: what the waiting found: `ip` or `line`.
        error: what kept it from finding it.
        is_interrupted: the operator ended the waiting.
    """

    asked: Asked
    survey: Survey
    node: Node
    plan: GuestPlan | None = None
    made: Made | None = None
    customized: Applied | None = None
    seen: dict[str, str] = field(default_factory=dict)
    error: NodeError | None = None
    is_interrupted: bool = False


def boot_outcome(story: Story, *, is_dry: bool, seconds: float) -> Outcome:
    """Sum a boot up; status 1 where the guest runs and was waited for in vain."""
    assert story.plan is not None, "it was planned"
    plan, node, error = story.plan, story.node.name, story.error
    warnings = [*story.survey.unknown, *_reconnect_warning(story)]
    failures = [] if error is None else [_error(node, error)]
    if story.is_interrupted:
        failures.append(_interruption(node, plan.name))
    document: dict[str, Any] = {
        "guest": _guest(story, plan),
        "seconds": round(seconds, 3),
        "scores": _scores(story.survey.placement),
        "warnings": warnings,
        "errors": failures,
    }
    if story.customized is not None:
        output = list(story.customized.output)
        document["customized"] = {"place": story.customized.place, "output": output}
    if is_dry:
        document |= {"dry_run": True, "xml": domain_xml(plan)}
    views: list[View] = [_table(story.survey.placement)] if story.asked.explain else []
    views.append(Lines((*_customized_lines(story), _line(story, plan, is_dry=is_dry))))
    if is_dry:
        views.append(Lines(tuple(domain_xml(plan).splitlines())))
    errors = [*warnings, *([] if error is None else [f"{plan.name} on {node}: {error}"])]
    if story.is_interrupted:
        errors.append(f"{failures[-1]['message']}; {failures[-1]['remedy']}")
        return Outcome(document, views, errors, status=1, is_interrupted=True)
    return Outcome(document, views, errors, status=0 if error is None else 1)


def _customized_lines(story: Story) -> list[str]:
    """Tell what virt-customize had to say, a random password for one."""
    if story.customized is None:
        return []
    return [f"{story.asked.request.name}: {line}" for line in story.customized.output]


def _line(story: Story, plan: GuestPlan, *, is_dry: bool) -> str:
    what = f"{plan.kind}, {size_text(plan.memory)}, {plan.vcpus} vCPU(s), {plan.virt_type}"
    if is_dry:
        return f"{plan.name} would be made on {story.node.name} ({what})"
    if ip := story.seen.get("ip"):
        return f"{plan.name} is up on {story.node.name} at {ip} ({what})"
    return f"{plan.name} runs on {story.node.name} ({what})"


def _reconnect_warning(story: Story) -> list[str]:
    """Say that this libvirt leaves a guest without patience for its disks, if it does."""
    if story.made is None or reconnect_kept(story.made.xml):
        return []
    version = ".".join(map(str, story.made.libvirt))
    text = (
        f"{story.node.name}: libvirt {version} has no <reconnect> for NBD disks: a restart of "
        f"nbdserve may pause the guest; minicloud resume {story.asked.request.name} lets it go on"
    )
    return [text]


def _guest(story: Story, plan: GuestPlan) -> dict[str, Any]:
    return {
        "name": plan.name,
        "uuid": plan.uuid,
        "node": story.node.name,
        "kind": str(plan.kind),
        "template": plan.origin.template,
        "memory": plan.memory,
        "vcpus": plan.vcpus,
        "virt_type": str(plan.virt_type),
        "mac": plan.mac,
        "export": plan.origin.export,
        "seed": plan.origin.seed,
        "ip": story.seen.get("ip"),
        **({"line": story.seen["line"]} if "line" in story.seen else {}),
    }


def _interruption(node: str, guest: str) -> dict[str, str]:
    return {
        "node": node,
        "reason": "interrupted",
        "message": f"waiting for {guest} was interrupted",
        "remedy": f"it goes on booting; look at it by minicloud console {guest}",
    }


def _error(node: str, error: NodeError) -> dict[str, str]:
    return {
        "node": node,
        "reason": str(error.reason),
        "message": error.message,
        "remedy": error.remedy,
    }


def _scores(placement: Placement) -> list[dict[str, Any]]:
    return [
        {"node": one.node, "free": one.free, "fits": one.fits, "reason": one.reason}
        for one in placement.scores
    ]


def _table(placement: Placement) -> Table:
    return Table(
        ("node", "free", "fits", "why"),
        [
            (
                one.node,
                "-" if one.free is None else size_text(max(one.free, 0)),
                "yes" if one.fits else "no",
                one.reason,
            )
            for one in placement.scores
        ],
        right=frozenset({"free"}),
    )
