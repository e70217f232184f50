"""The images of templates checked, each mirror by itself: one row each, whatever happens.

A path is looked at on the machine of the export server; on every node where each has its own.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from minicloud.domain.metadata import public_image
from minicloud.errors import MinicloudError, StorageError, UsageError
from minicloud.images.facts import ImageFacts, checksums_of, complaints
from minicloud.images.farfile import Shell
from minicloud.images.inspecting import check_layers, inspect_far_image, inspect_image
from minicloud.inventory.kinds import is_url
from minicloud.inventory.templates import has_images_here
from minicloud.model.inventory import Inventory, Node, Template

__all__ = ["Checked", "check_images"]

_AT_ONCE: Final = 8  # looks at the ends of files
_WHOLE: Final = 1  # reads all of a file: two would share the line and both be late


class Reporter(Protocol):
    """Tells the operator how a long step goes on."""

    def step(self, text: str) -> None:
        """Say what is being done from now on."""

    def progress(self, done: int, total: int, unit: str = "B") -> None:
        """Say how far the step has come."""


Reach = Callable[[Node], Awaitable[Shell]]
"""Gives the shell of a machine; NodeError where it does not answer."""


@dataclass(frozen=True, slots=True)
class Checked:
    """One image of a template; `facts` are there where it could be looked at.

    Attributes:
        template: whose image it is.
        image: its URL or path.
        machine: the name of the machine the path is on; "" for this one and for a URL.
        facts: what was found.
        errors: why guests cannot be made of it.
        warnings: why they will be slow.
    """

    template: Template
    image: str
    machine: str = ""
    facts: ImageFacts | None = None
    errors: tuple[MinicloudError, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """Where the image is, as scp writes it; without credentials."""
        image = public_image(self.image)
        return f"{self.machine}:{image}" if self.machine else image


@dataclass(frozen=True, slots=True)
class _Wanted:
    template: Template
    image: str
    machine: Node | None
    is_first: bool

    def found(self, **found: Any) -> Checked:
        machine = "" if self.machine is None else self.machine.name
        return Checked(self.template, self.image, machine, **found)


async def check_images(
    inventory: Inventory,
    templates: Sequence[Template],
    report: Reporter,
    *,
    whole: bool,
    reach: Reach,
    deadline: float | None = None,
) -> list[Checked]:
    """Check every image of some templates, on every machine it should be on.

    Args:
        inventory: they are of.
        templates: whose images.
        report: is told of progress.
        whole: read each file from end to end where a checksum is given.
        reach: asked for the machines that images lie on.
        deadline: seconds for all of it; what is not done then has that error.

    Returns:
        One for each image and machine, in order.
    """
    free = asyncio.Semaphore(_WHOLE if whole else _AT_ONCE)

    async def check(wanted: _Wanted) -> Checked:
        async with free:
            return await _check(wanted, report, reach, whole=whole)

    wanted = [one for template in templates for one in _wanted(inventory, template)]
    if not wanted:
        return []
    tasks = [asyncio.ensure_future(check(one)) for one in wanted]
    try:
        await asyncio.wait(tasks, timeout=deadline)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    late = StorageError("deadline", f"not done within {deadline or 0:g} s; give it more: --timeout")
    return [
        one.found(errors=(late,)) if task.cancelled() else task.result()
        for task, one in zip(tasks, wanted, strict=True)
    ]


def _wanted(inventory: Inventory, template: Template) -> list[_Wanted]:
    """List what there is to look at: a path lies on the export server, or on every node."""
    nbd = inventory.nbd
    places: list[tuple[str, Node | None]] = []
    for image in template.image:
        if is_url(image) or has_images_here(nbd):
            places.append((image, None))
        elif nbd is not None and nbd.ssh is not None:
            places.append((image, nbd.ssh))
        else:
            places += [(image, node) for node in inventory.nodes.values()]
    return [
        _Wanted(template, image, machine, is_first=number == 0)
        for number, (image, machine) in enumerate(places)
    ]


async def _check(wanted: _Wanted, report: Reporter, reach: Reach, *, whole: bool) -> Checked:
    template, image, machine = wanted.template, wanted.image, wanted.machine
    # what is wrong with the template itself is told once
    errors = _of_template(template) if wanted.is_first else []
    sums = checksums_of(template) if whole else {}
    report.step(f"{'reading' if sums else 'looking at'} {wanted.found().place}")
    try:
        if machine is None:
            facts = await inspect_image(image, sums=sums, progress=report.progress)
        else:
            facts = await inspect_far_image(await reach(machine), image, sums=sums)
    except MinicloudError as exc:
        return wanted.found(errors=(*errors, exc))
    errors += [StorageError("wrong", text) for text in complaints(facts, template)]
    return wanted.found(facts=facts, errors=tuple(errors), warnings=tuple(facts.warnings))


def _of_template(template: Template) -> list[MinicloudError]:
    """Find what is wrong with a template that its reader leaves to whoever uses it."""
    found: list[MinicloudError] = []
    try:
        check_layers(template)
    except UsageError as exc:
        found.append(exc)
    if template.user_data is not None and not template.user_data.is_file():
        found.append(StorageError("wrong", f"user-data: there is no file {template.user_data}"))
    return found
