"""Starting a guest to see whether it says what it must: what `Hypervisor.call` runs.

The guest ends with the connection (AUTODESTROY), so that it is gone however the question ends.
"""

import contextlib
from typing import Any

from minicloud.hypervisor.binding import libvirt_module

__all__ = ["says"]


def says(connection: Any, xml: str, word: bytes) -> bool:
    """Make a domain, listen to its serial console until the word comes or it ends, and remove it.

    A guest that says nothing is listened to for ever: the caller's deadline ends it, by cutting the
    connection.
    """
    libvirt = libvirt_module()
    flags = libvirt.VIR_DOMAIN_START_PAUSED | libvirt.VIR_DOMAIN_START_AUTODESTROY
    domain = connection.createXML(xml, flags)
    try:
        stream = connection.newStream(0)
        domain.openConsole(None, stream, 0)
        domain.resume()
        said = b""
        while word not in said:
            data = stream.recv(4096)
            if not data:
                return False
            said += data
        return True
    finally:
        with contextlib.suppress(libvirt.libvirtError):
            domain.destroy()
