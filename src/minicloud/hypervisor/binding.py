"""libvirt-python, imported when it is first needed and silenced.

It is a C extension that has to be built, so minicloud runs without it as far as that goes
(`status` by virsh). What it prints to standard error by itself is dropped, as it is raised too.
"""

import contextlib
import functools
import importlib
import os
import threading
from types import ModuleType
from typing import Any, Final

from minicloud.errors import NodeError, Reason

__all__ = ["libvirt_module", "preload", "told"]

_INSTALL: Final = "pip install libvirt-python (needs libvirt-dev, pkg-config and a C compiler)"


@functools.cache
def libvirt_module() -> ModuleType:
    """Return libvirt's Python module.

    Raises:
        NodeError: it is not installed.
    """
    # read by the C library once, when it is loaded; its warnings say nothing to an operator
    os.environ.setdefault("LIBVIRT_DEBUG", "4")
    try:
        libvirt = importlib.import_module("libvirt")
    except ImportError as exc:
        raise NodeError(Reason.TOOL, "libvirt-python is not installed here", _INSTALL) from exc
    libvirt.registerErrorHandler(_say_nothing, None)
    return libvirt


@functools.cache
def preload() -> None:
    """Begin to import libvirt in a thread, while the first node is still being connected to.

    The import takes as long as a login. That it fails is said by whoever needs it.
    """

    def load() -> None:
        with contextlib.suppress(NodeError):
            libvirt_module()

    threading.Thread(target=load, name="import libvirt", daemon=True).start()


def told(exc: Any) -> NodeError:
    """Say what a libvirtError means."""
    libvirt = libvirt_module()
    message = " ".join((exc.get_error_message() or str(exc)).split())
    if exc.get_error_code() in {
        libvirt.VIR_ERR_AUTH_FAILED,
        libvirt.VIR_ERR_AUTH_CANCELLED,
        libvirt.VIR_ERR_AUTH_UNAVAILABLE,
        libvirt.VIR_ERR_ACCESS_DENIED,
    }:
        return NodeError(
            Reason.LIBVIRT_PERMISSION,
            f"libvirtd lets this user do nothing: {message}",
            "add the user to the group libvirt on the node, or log in as root",
        )
    if exc.get_error_domain() == libvirt.VIR_FROM_RPC:  # of our own end: nothing came back
        return NodeError(
            Reason.LIBVIRT_LOST,
            f"libvirtd ended the connection: {message}",
            "see its log on the node: journalctl -u libvirtd -u virtqemud",
        )
    return NodeError(Reason.LIBVIRT, message)


def _say_nothing(_context: object, _error: object) -> None:
    """Take the place of the printing that libvirt does by itself."""
