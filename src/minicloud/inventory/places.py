"""Where the inventory lies, and the programs that are templates; apart, so that a Tab is quick."""

import os
import re
from pathlib import Path
from typing import Final

import platformdirs

from minicloud.errors import UsageError

__all__ = ["FOLDERS", "NAME_PATTERN", "VARIABLE", "find_inventory", "located", "scripts_beside"]

VARIABLE: Final = "MINICLOUD_CONFIG"
FOLDERS: Final = "MINICLOUD_PATH"
NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""A name of ours: no colon in it, since guests are NODE:NAME."""

_SUFFIX: Final = ".template"


def find_inventory(given: Path | None) -> Path:
    """Say which file is the inventory: the one given, else the environment's, else the user's.

    Raises:
        UsageError: there is none.
    """
    if given is not None:
        return given
    named = os.environ.get(VARIABLE)
    if named:
        path = located(named, Path())
        if not path.exists():
            raise UsageError(f"there is no such inventory, but {VARIABLE} names it", file=path)
        return path
    usual = platformdirs.user_config_path("minicloud") / "minicloud.toml"
    if usual.is_file():
        return usual
    raise UsageError(
        f"no inventory: neither --config nor {VARIABLE} names one, and there is no {usual}; "
        "make a first one of your ssh_config: minicloud --from-ssh-config 'PATTERN' > FILE"
    )


def scripts_beside(inventory: Path | None) -> dict[str, Path]:
    """Find the programs that are templates, by name; nothing is run.

    Args:
        inventory: the file beside which `templates/` is looked for first, if there is one.
    """
    folders = [] if inventory is None else [inventory.absolute().parent / "templates"]
    folders += [located(word, Path()) for word in os.environ.get(FOLDERS, "").split(":") if word]
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob(f"*{_SUFFIX}")):
            name = path.name.removesuffix(_SUFFIX)
            if path.is_file() and NAME_PATTERN.fullmatch(name):
                found.setdefault(name, path.absolute())
    return found


def located(written: str, folder: Path) -> Path:
    """Say which file of this machine a path means: `~/` is one's own, others are the folder's."""
    return Path.home() / written[2:] if written.startswith("~/") else folder / written
