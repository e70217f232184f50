"""The images of templates checked, each mirror by itself: one row each, whatever happens."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from minicloud.errors import MinicloudError, StorageError, UsageError
from minicloud.images.facts import ImageFacts, checksums_of, complaints
from minicloud.images.inspecting import check_layers, inspect_image
from minicloud.inventory.kinds import is_url
from minicloud.inventory.templates import has_images_here
from minicloud.model.inventory import Inventory, NbdService, Template

__all__ = ["Checked", "check_images"]

_AT_ONCE: Final = 8  # looks at the ends of files
_WHOLE: Final = 1  # reads all of a file: two would share the line and both be late


class Reporter(Protocol):
    """Tells the operator how a long step goes on."""

    def step(self, text: str) -> None:
        """Say what is being done from now on."""

    def progress(self, done: int, total: int, unit: str = "B") -> None:
        """Say how far the step has come."""


@dataclass(frozen=True, slots=True)
class Checked:
    """One image of a template; `facts` are there where it could be looked at.

    Attributes:
        template: whose image it is.
        image: its URL or path.
        facts: what was found.
        errors: why guests cannot be made of it.
        warnings: why they will be slow.
    """

    template: Template
    image: str
    facts: ImageFacts | None = None
    errors: tuple[MinicloudError, ...] = ()
    warnings: tuple[str, ...] = field(default_factory=tuple)


async def check_images(
    inventory: Inventory,
    templates: Sequence[Template],
    report: Reporter,
    *,
    whole: bool,
    deadline: float | None = None,
) -> list[Checked]:
    """Check every image of some templates.

    Args:
        inventory: they are of.
        templates: whose images.
        report: is told of progress.
        whole: read each file from end to end where a checksum is given.
        deadline: seconds for all of it; what is not done then has that error.

    Returns:
        One for each image, in order.
    """
    free = asyncio.Semaphore(_WHOLE if whole else _AT_ONCE)

    async def check(template: Template, image: str) -> Checked:
        async with free:
            found = await _check(inventory.nbd, template, image, report, whole=whole)
        if image != template.image[0]:
            return found  # what is wrong with the template itself is told once
        return replace(found, errors=(*_of_template(template), *found.errors))

    wanted = [(template, image) for template in templates for image in template.image]
    if not wanted:
        return []
    tasks = [asyncio.ensure_future(check(template, image)) for template, image in wanted]
    try:
        await asyncio.wait(tasks, timeout=deadline)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    late = StorageError("deadline", f"not done within {deadline or 0:g} s; give it more: --timeout")
    return [
        Checked(template, image, errors=(late,)) if task.cancelled() else task.result()
        for task, (template, image) in zip(tasks, wanted, strict=True)
    ]


async def _check(
    nbd: NbdService | None, template: Template, image: str, report: Reporter, *, whole: bool
) -> Checked:
    if not is_url(image) and not has_images_here(nbd):
        return Checked(template, image, errors=(_elsewhere(nbd, image),))
    sums = checksums_of(template) if whole else {}
    report.step(f"{'reading' if sums else 'looking at'} {image}")
    try:
        facts = await inspect_image(image, sums=sums, progress=report.progress)
    except MinicloudError as exc:
        return Checked(template, image, errors=(exc,))
    errors = tuple(StorageError("wrong", text) for text in complaints(facts, template))
    return Checked(template, image, facts, errors, tuple(facts.warnings))


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


def _elsewhere(nbd: NbdService | None, image: str) -> StorageError:
    server = "every node" if nbd is None or nbd.ssh is None else nbd.ssh.name
    return StorageError(
        "elsewhere", f"it lies on {server}, not here: look at it there, nbdctl inspect {image}"
    )
