"""What was found out about one image, and what of it does not agree with its template. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from minicloud.model.inventory import Template
from nbdserve.formats.magic import container, guess
from nbdserve.inspection import Inspection, XzFacts, short_size

__all__ = ["ImageFacts", "checksums_of", "complaints"]

# What leaves the size of the disk as it is; nothing is said of a disk behind any other layer.
_LEVEL: Final = frozenset(
    {"cache", "cow", "delay", "error", "log", "readahead", "readonly", "stats"}
)
_XZ: Final = "xz"


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """An image as it was found.

    Attributes:
        size: of the file in bytes.
        head: its first 512 bytes, or all of them.
        xz: its blocks, if it is an xz file.
        remedy: the command that packs it anew, if it is one.
        sums: the checksums that were taken, by the name of their algorithm, in hex.
    """

    size: int
    head: bytes
    xz: XzFacts | None = None
    remedy: str = ""
    sums: Mapping[str, str] = field(default_factory=dict)

    @property
    def warnings(self) -> list[str]:
        """What makes guests of it slow, with the remedy."""
        size = 0 if self.xz is None else self.xz.layout.size
        return Inspection(size, (), 0, 0, self.xz, self.remedy).warnings

    @property
    def format(self) -> str:
        """What it is, in a word."""
        if self.xz is not None:
            return _XZ
        return "raw" if container(self.head) is None else "unknown"

    def disk(self, template: Template) -> int | None:
        """Size of the disk in it, in bytes; None if a layer makes another of it."""
        names = {_name(layer) for layer in template.layers}
        if self.xz is not None:
            return self.xz.layout.size if names <= _LEVEL | {_XZ} else None
        return self.size if names <= _LEVEL else None

    def as_json(self, template: Template) -> dict[str, Any]:
        """Return the facts as plain values."""
        return {
            "size": self.size,
            "format": self.format,
            "disk": self.disk(template),
            "xz": None if self.xz is None else self.xz.as_json(),
            "checksums": dict(self.sums),
        }


def checksums_of(template: Template) -> dict[str, str]:
    """List the checksums a template gives, by the name of their algorithm."""
    given = {"sha256": template.sha256, "sha512": template.sha512}
    return {name: value for name, value in given.items() if value is not None}


def complaints(facts: ImageFacts, template: Template) -> list[str]:
    """Say what is wrong with an image, each with its remedy; empty if guests can be made of it."""
    return [*_of_format(facts, template), *_of_size(facts, template), *_of_sums(facts, template)]


def _of_format(facts: ImageFacts, template: Template) -> list[str]:
    unpacked = _XZ in {_name(layer) for layer in template.layers}
    if facts.xz is None and unpacked:
        return [f"it is no xz file, but layers has xz: {guess(facts.head)}"]
    if facts.xz is None:
        answer = container(facts.head)
        return [] if answer is None else [f"it is no disk image: {answer}"]
    if not unpacked:
        return ['it is an xz file, but no layer unpacks it: write layers = ["xz"]']
    return []


def _of_size(facts: ImageFacts, template: Template) -> list[str]:
    disk = facts.disk(template)
    if disk is None or template.size is None or disk <= template.size:
        return []
    given, found = short_size(template.size), short_size(disk)
    return [f"size is {given}, but the disk in it has {found}: a disk only grows"]


def _of_sums(facts: ImageFacts, template: Template) -> list[str]:
    return [
        f"its {name} is {facts.sums[name]}, not {given} as the inventory says: fetch the checksum "
        "anew where the image is published; if that is the same, do not use this copy"
        for name, given in checksums_of(template).items()
        if name in facts.sums and facts.sums[name] != given
    ]


def _name(layer: str) -> str:
    return layer.partition(":")[0]
