"""The server of the exports: there, permitted, of our version, and keeping what it must. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from minicloud.doctor.check import Check, Subject, tidied
from minicloud.errors import MinicloudError
from minicloud.model.inventory import NbdService
from minicloud.model.sizes import size_text
from nbdserve import __version__

__all__ = ["check_export_server"]

_MOST: Final = 5  # exports that are named; a server may have thousands
_CHECKS: Final = ("version", "state", "overlays", "space", "exports opened")
_LITTLE: Final = 0.05  # of the file system; guests pause once it is full


def check_export_server(
    subject: Subject, nbd: NbdService, status: Mapping[str, Any] | MinicloudError
) -> Iterator[Check]:
    """Judge what nbdserve says of itself.

    Args:
        subject: `nbd`, or a node that has one of its own.
        nbd: where it should be.
        status: all of it, or why it says nothing.
    """
    if isinstance(status, MinicloudError):
        text, remedy = tidied(str(status))
        yield subject.failed("control", text, remedy or "see nbdserve's log")
        yield from (subject.skipped(check, "control failed") for check in _CHECKS)
        return
    if status.get("state") == "serving":
        yield subject.good("control", nbd.control)
    else:
        yield subject.warning(
            "control", f"nbdserve is {status.get('state')}", "it is ending: start it again"
        )
    yield _version(subject, status)
    yield _state(subject, status)
    yield _overlays(subject, nbd, status)
    yield _space(subject, status)
    yield _exports(subject, status)


def _version(subject: Subject, status: Mapping[str, Any]) -> Check:
    if (version := status.get("version")) == __version__:
        return subject.good("version", f"nbdserve {version}")
    return subject.warning(
        "version", f"nbdserve {version}; minicloud is made for {__version__}",
        f"pip install nbdserve=={__version__} there, and restart it",
    )  # fmt: skip


def _state(subject: Subject, status: Mapping[str, Any]) -> Check:
    if "state_dir" not in status:
        return subject.warning(
            "state", "it does not say where exports are kept", "a newer nbdserve"
        )
    if folder := status["state_dir"]:
        return subject.good("state", f"added exports are kept in {folder}")
    return subject.failed(
        "state", "added exports, guests' disks among them, are lost when it is restarted",
        "start it with --state-dir /var/lib/nbdserve",
    )  # fmt: skip


def _overlays(subject: Subject, nbd: NbdService, status: Mapping[str, Any]) -> Check:
    if "overlay_dir" not in status:
        return subject.warning(
            "overlays", "it does not name its overlay folder", "a newer nbdserve"
        )
    folder = status["overlay_dir"]
    if folder == nbd.overlays:
        return subject.good("overlays", folder)
    if folder is None:
        return subject.failed(
            "overlays", "it has no overlay folder: what guests leave behind cannot be removed",
            f"start it with --overlay-dir {nbd.overlays}",
        )  # fmt: skip
    return subject.failed(
        "overlays", f"it keeps overlays in {folder}, and the inventory has {nbd.overlays}",
        f'overlays = "{folder}" in [nbd], or --overlay-dir {nbd.overlays}',
    )  # fmt: skip


def _space(subject: Subject, status: Mapping[str, Any]) -> Check:
    space = status.get("overlay_space")
    if space is None:
        return subject.skipped("space", "it does not say how full the overlay folder is")
    free, size = space["free"], space["size"]
    text = f"{size_text(free)} of {size_text(size)} are free for what guests write"
    if free < size * _LITTLE:
        return subject.warning(
            "space", f"{text}; guests pause once it is full",
            f"minicloud gc, nbdctl overlay list, or more room for {status.get('overlay_dir')}",
        )  # fmt: skip
    return subject.good("space", text)


def _exports(subject: Subject, status: Mapping[str, Any]) -> Check:
    exports = status.get("exports", [])
    broken = [f"{one['name']}: {one['error']}" for one in exports if one.get("error")]
    if not broken:
        return subject.good(
            "exports opened", f"all {len(exports)}" if exports else "none is served"
        )
    more = f", and {len(broken) - _MOST} more" if len(broken) > _MOST else ""
    return subject.failed(
        "exports opened", f"{len(broken)} of {len(exports)}: {', '.join(broken[:_MOST])}{more}",
        "mend what they are made of and restart nbdserve, or remove them: nbdctl export remove",
    )  # fmt: skip
