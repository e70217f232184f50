"""From the values of a template, in TOML or from an executable one, to a `Template`.

What is not said comes from `[defaults]`; what contradicts itself is an error.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from minicloud.inventory.customize import with_paths
from minicloud.inventory.kinds import is_url
from minicloud.inventory.places import located
from minicloud.inventory.tables import TableReader
from minicloud.model.inventory import Defaults, NbdService, Template

__all__ = ["build_template", "has_images_here"]

_XZ: Final = ".xz"
_INHERITED: Final = ("memory", "vcpus", "bus", "network", "cpu")


def has_images_here(nbd: NbdService | None) -> bool:
    """Tell whether the export server runs on this machine, so that images' paths are its own."""
    return nbd is None or (nbd.ssh is None and nbd.socket is None)


def build_template(
    name: str,
    values: Mapping[str, Any],
    defaults: Defaults,
    *,
    reader: TableReader,
    table: str | None,
    folder: Path,
    images_here: bool,
) -> Template | None:
    """Make a template.

    Args:
        name: its name.
        values: as `TableReader.values` reads them with `TEMPLATE_KEYS`.
        defaults: of what is not said.
        reader: takes the errors.
        table: where they are.
        folder: what relative paths are relative to.
        images_here: the export server runs on this machine, so that an image's path may be
            relative too.

    Returns:
        None if it cannot be made of them.
    """
    before = len(reader.errors)
    made = dict(values)
    if not made.get("image"):
        if (table, "image") not in {(error.table, error.key) for error in reader.errors}:
            reader.wrong(table, "image", "is missing: a URL, a list of mirrors, or a path")
        return None
    made["image"] = _images(made["image"], reader, table, folder, images_here=images_here)
    _check_kernel(made, reader, table)
    inherited = {key: getattr(defaults, key) for key in _INHERITED}
    _check_sizes(made, reader, table)
    if len(reader.errors) > before:
        return None
    if "layers" not in made and _path_of(made["image"][0]).endswith(_XZ):
        made["layers"] = ("xz",)
    if "user_data" in made:
        made["user_data"] = located(made["user_data"], folder)
    # a template that asks for more than the defaults give must still be startable without options
    inherited["memory"] = max(inherited["memory"], made.get("minimum_memory", 0))
    made["customize"] = tuple(with_paths(option, folder) for option in made.get("customize", ()))
    return Template(name=name, **{**inherited, **made})


def _images(
    written: tuple[str, ...],
    reader: TableReader,
    table: str | None,
    folder: Path,
    *,
    images_here: bool,
) -> tuple[str, ...]:
    if len(written) > 1 and not all(map(is_url, written)):
        reader.wrong(table, "image", "several images are mirrors of one: URLs all of them")
    if is_url(written[0]):
        return written
    if images_here:
        return (str(located(written[0], folder)), *written[1:])
    if not written[0].startswith("/"):
        reader.wrong(
            table, "image",
            f"{written[0]!r} will not do: a path on the export server begins with /",
        )  # fmt: skip
    return written


def _path_of(image: str) -> str:
    return urlsplit(image).path if is_url(image) else image


def _check_kernel(made: Mapping[str, Any], reader: TableReader, table: str | None) -> None:
    for key in ("initrd", "cmdline"):
        if key in made and "kernel" not in made:
            reader.wrong(table, key, "goes with a kernel: name it, or leave this out")


def _check_sizes(made: Mapping[str, Any], reader: TableReader, table: str | None) -> None:
    for key, least in (("size", "minimum_size"), ("memory", "minimum_memory")):
        if key in made and made[key] < made.get(least, 0):
            reader.wrong(table, key, f"is less than {least.replace('_', '-')}")
