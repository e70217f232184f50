"""As many file descriptors as there may be clients, within the hard limit.

The usual soft limit of 1024 is there for select(2), which nothing here uses (systemd.exec(5),
"LimitNOFILE="); the default of --max-connections is 1000.
"""

import logging
import resource
from typing import Final

__all__ = ["allow_descriptors"]

log = logging.getLogger(__name__)

_OURS: Final = 256  # for the exports, sources' connections, the loop, logs


def allow_descriptors(clients: int) -> None:
    """Raise the soft limit for so many clients, and say so if that cannot be done."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = clients + _OURS
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    granted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (granted, hard))
    except (OSError, ValueError):  # a sandbox may forbid it
        granted = soft
    if granted < wanted:
        log.warning(
            "too few file descriptors for so many clients limit=%d max-connections=%d; "
            "raise LimitNOFILE= of the service, or lower --max-connections",
            granted,
            clients,
        )
