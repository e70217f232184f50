"""Which rows there are, and which of them were asked for. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from remote.contenders import CONTENDERS, Contender
from remote.images import NAMES, RAW
from remote.works import WORKS, Work

__all__ = ["LINKS", "LOCAL", "Row", "SelectionError", "plan"]

LINKS = ["loop", "far"]

_RAW_WORKS = {"copy", "convert"}  # what an image that is not compressed is there to show


class SelectionError(Exception):
    """A word that selects nothing, told with those that do."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; all are names."""

    link: str
    image: str
    work: str
    contender: str


# The guest booted from the image as a file: what a boot could take at best.
LOCAL = Row("none", RAW, "boot", "local-file")


def plan(only: Iterable[str]) -> list[Row]:
    """Return the rows to measure, in the order of the table.

    Args:
        only: names of links, images, works and contenders. Of each kind that is named, the row has
            to be one of the named; images that are not compressed are on the far link, and unusual
            contenders anywhere, only where they are named.

    Raises:
        SelectionError: a name is not known, or the names leave nothing.
    """
    words = list(only)
    kinds = [LINKS, NAMES, list(WORKS), list(CONTENDERS)]
    for word in words:
        if not any(word in kind for kind in kinds):
            known = "; ".join(", ".join(kind) for kind in kinds)
            raise SelectionError(f"--only: there is no {word!r}; there are: {known}")
    chosen = [[name for name in kind if name in words] for kind in kinds]
    links, images, works, contenders = (
        named or kind for named, kind in zip(chosen, kinds, strict=True)
    )
    rows = [
        Row(link, image, work, contender)
        for link in links for image in images for work in works for contender in contenders
        if _applies(link, image, WORKS[work], CONTENDERS[contender], words)
    ]  # fmt: skip
    if not rows:
        raise SelectionError(f"--only: no row is all of {', '.join(words)}")
    if any(row.work == LOCAL.work or WORKS[row.work].again for row in rows):
        rows.insert(0, LOCAL)
    return rows


def _applies(link: str, image: str, work: Work, contender: Contender, words: Sequence[str]) -> bool:
    if not contender.usual and contender.name not in words:
        return False
    if image == RAW:
        far = link == "far" and RAW not in words  # three minutes and more for each
        return work.name in _RAW_WORKS and not far and _handles_raw(work, contender)
    if contender.raw or (work.again and not contender.persistent):
        return False
    if contender.persistent and not work.again:
        return False
    return contender.serves or work.name == "copy"


def _handles_raw(work: Work, contender: Contender) -> bool:
    if contender.persistent:
        return False
    if contender.serves:
        return True
    return work.name == ("convert" if contender.raw else "copy")
