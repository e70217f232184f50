"""The catalogue: every template there is, those that are programs asked now."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from minicloud.errors import UsageError
from minicloud.inventory.scripts import scripts_of, template, template_names
from minicloud.model.inventory import Inventory, Template
from nbdserve.params import closest

__all__ = ["Entry", "entries"]

_AT_ONCE: Final = 4  # programs, each of which answers several questions at once


@dataclass(frozen=True, slots=True)
class Entry:
    """A template in the catalogue; `template` is there where `error` is None.

    Attributes:
        name: of the template.
        script: the program it comes from, or None.
        template: it.
        error: why the program gave none.
    """

    name: str
    script: Path | None
    template: Template | None = None
    error: UsageError | None = None


async def entries(inventory: Inventory, names: Sequence[str] = ()) -> list[Entry]:
    """Give the templates of these names, or all of them; programs are run, several at once.

    Raises:
        UsageError: there is none of such a name.
    """
    known = template_names(inventory)
    for name in names:
        if name not in known:
            raise UsageError(
                f"no template is called {name!r}; {closest(name, known)}", file=inventory.file
            )
    scripts = scripts_of(inventory)
    free = asyncio.Semaphore(_AT_ONCE)

    async def entry(name: str) -> Entry:
        script = None if name in inventory.templates else scripts[name]
        async with free:
            try:
                return Entry(name, script, await template(inventory, name))
            except UsageError as exc:
                return Entry(name, script, error=exc)

    return list(await asyncio.gather(*map(entry, dict.fromkeys(names or known))))
