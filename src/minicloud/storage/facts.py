"""What nbdserve says of its exports and overlays, as values. Pure.

Invariant: keys that are not known are left alone, so that a later nbdserve may say more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minicloud.errors import StorageError

__all__ = ["ExportFacts", "OverlayFacts", "parse_export", "parse_overlay"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFacts:
    """An export.

    Attributes:
        name: what clients ask for.
        description: for people.
        size: bytes, or None where it is not open.
        connections: clients it has now.
        is_added: it was added while the server ran, so it can be removed too.
        age: seconds since it was added; None where that is not known.
        error: why it could not be opened, or None.
    """

    name: str
    description: str
    size: int | None
    connections: int
    is_added: bool
    age: float | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayFacts:
    """A file that keeps what a guest wrote.

    Attributes:
        name: the file's, in the overlay folder.
        path: the whole of it, on the server.
        size: bytes of the disk it makes.
        allocated: bytes it takes.
        export: the export that uses it, or None.
    """

    name: str
    path: str
    size: int
    allocated: int
    export: str | None


def parse_export(facts: Mapping[str, Any]) -> ExportFacts:
    """Read one of `export.list`.

    Raises:
        StorageError: it is none.
    """
    try:
        return ExportFacts(
            name=facts["name"],
            description=facts["description"],
            size=facts["size"],
            connections=facts["connections"],
            is_added=facts["added"],
            age=facts["age"],
            error=facts["error"],
        )
    except (KeyError, TypeError) as exc:
        raise _other_version("an export", exc) from exc


def parse_overlay(facts: Mapping[str, Any]) -> OverlayFacts:
    """Read one of `overlay.list`.

    Raises:
        StorageError: it is none.
    """
    try:
        return OverlayFacts(
            name=facts["name"],
            path=facts["path"],
            size=facts["size"],
            allocated=facts["allocated"],
            export=facts["export"],
        )
    except (KeyError, TypeError) as exc:
        raise _other_version("an overlay", exc) from exc


def _other_version(thing: str, exc: Exception) -> StorageError:
    return StorageError(
        "version", f"nbdserve does not say {exc} of {thing}; run the version minicloud came with"
    )
