"""What a guest's things are called: its name decides all of them, so no table has to be kept.

A guest's name is a host name, since it becomes one, a file name and an export name.
"""

import hashlib
import re
from collections.abc import Iterable
from typing import Final

from minicloud.errors import UsageError
from nbdserve.params import closest

__all__ = [
    "GUEST_PREFIX",
    "RECORD_PREFIX",
    "SEED_PREFIX",
    "check_name",
    "guest_export_name",
    "guest_of",
    "mac_of",
    "overlay_path",
    "record_export_name",
    "seed_export_name",
    "split_target",
]

GUEST_PREFIX: Final = "guest/"
SEED_PREFIX: Final = "seed/"
RECORD_PREFIX: Final = "domain/"

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.IGNORECASE)
_SUFFIX: Final = ".cow"
_QEMU_MAC: Final = "52:54:00"  # the prefix of QEMU's and libvirt's own, locally administered


def check_name(name: str) -> str:
    """Return a guest's name if it can be one.

    Raises:
        UsageError: it is no host name's label (RFC 1123, section 2.1).
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be a guest's name; write letters, digits and hyphens, at most 63, "
            "as in a host name"
        )
    return name


def split_target(text: str, nodes: Iterable[str]) -> tuple[str | None, str]:
    """Split `[NODE:]NAME`, mclu's way to say where a guest goes.

    Returns:
        The node's name, or None where none was named, and the guest's.

    Raises:
        UsageError: there is no such node, or the name cannot be one.
    """
    node, colon, name = text.rpartition(":")
    if not colon:
        return None, check_name(text)
    known = list(nodes)
    if node not in known:
        raise UsageError(f"there is no node {node!r}; {closest(node, known)}")
    return node, check_name(name)


def guest_export_name(name: str) -> str:
    """Name the export of a guest's disk."""
    return f"{GUEST_PREFIX}{name}"


def seed_export_name(name: str) -> str:
    """Name the export of a guest's cloud-init seed."""
    return f"{SEED_PREFIX}{name}"


def record_export_name(name: str) -> str:
    """Name the export that keeps a guest's definition."""
    return f"{RECORD_PREFIX}{name}"


def overlay_path(folder: str, name: str) -> str:
    """Name the file that keeps what a guest writes, on the machine of the exports."""
    return f"{folder.rstrip('/')}/{name}{_SUFFIX}"


def guest_of(thing: str) -> str | None:
    """Tell whose an export (by name) or an overlay (by path) is; None if it is no guest's."""
    for prefix in (GUEST_PREFIX, SEED_PREFIX, RECORD_PREFIX):
        if thing.startswith(prefix):
            name = thing.removeprefix(prefix)
            break
    else:
        name = thing.rpartition("/")[2]
        if not name.endswith(_SUFFIX):
            return None
        name = name.removesuffix(_SUFFIX)
    return name if _NAME.fullmatch(name) else None


def mac_of(name: str) -> str:
    """Make a guest's network address out of its name: the same wherever and whenever it starts.

    So a DHCP server gives it the same lease again. Two names share one in 16 million cases.
    """
    digest = hashlib.sha256(name.encode()).digest()
    return ":".join([_QEMU_MAC, *(f"{byte:02x}" for byte in digest[:3])])
