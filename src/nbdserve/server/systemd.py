"""What systemd and a service say to each other: sockets, folders, readiness, the watchdog.

Written down here rather than imported: the protocol is some environment variables and one
datagram. Source: sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3).
"""

import os
import socket
from pathlib import Path
from typing import Final

__all__ = ["Notifier", "systemd_folder", "take_listen_fds", "watchdog_interval"]

_FIRST_FD: Final = 3  # SD_LISTEN_FDS_START


def take_listen_fds() -> list[int]:
    """Return the file descriptors systemd passed to this process, and forget about them.

    The variables are removed, so that children do not take them for their own.
    """
    pid = os.environ.pop("LISTEN_PID", "")
    count = os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    fds = list(range(_FIRST_FD, _FIRST_FD + int(count)))
    for fd in fds:
        os.set_inheritable(fd, False)
    return fds


def systemd_folder(variable: str) -> Path | None:
    """Return a folder made for this service, named by RUNTIME_DIRECTORY or the like.

    Source: systemd.exec(5), RuntimeDirectory=; the first where there are several.
    """
    folder = os.environ.get(variable, "").partition(":")[0]
    return Path(folder) if folder else None


def watchdog_interval() -> float | None:
    """Return how often to notify the watchdog, in seconds: half its time-out; None for never."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if not usec.isdigit() or int(usec) == 0 or pid != str(os.getpid()):
        return None
    return int(usec) / 2_000_000


class Notifier:
    """Tell the service manager how the service is; silent where there is none."""

    def __init__(self) -> None:
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]

    def notify(self, *lines: str) -> None:
        """Send assignments such as READY=1; a manager that is gone is no error."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            pass  # nothing of the service depends on being heard
