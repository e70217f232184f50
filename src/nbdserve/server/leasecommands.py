"""Who has an export: the commands export.handover, .handover-end and .disconnect.

A handover is in memory: after a restart of the daemon the first client to come has the export.
"""

import logging
from collections.abc import Mapping
from typing import Any

from nbdserve.control.messages import CommandError, FailureKind
from nbdserve.params import TEXT, TIMEOUT
from nbdserve.server.arguments import Arguments, Report
from nbdserve.server.exportcommands import known_slot
from nbdserve.server.lease import Lease
from nbdserve.server.report import Service

__all__ = ["LeaseCommands"]

log = logging.getLogger(__name__)

_USUAL = 60.0  # seconds; a live migration is asked for anew when it takes longer


class LeaseCommands:
    """Hand an exclusive export over, and drop the clients of any.

    Args:
        service: the daemon.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    async def handover(self, given: Mapping[str, Any], report: Report) -> Mapping[str, Any]:
        """Let a second client come in for a time, whose first write takes the lease."""
        arguments = Arguments(given, "export", "seconds")
        name = arguments.optional("export", TEXT, "")
        seconds = arguments.optional("seconds", TIMEOUT, _USUAL)
        self._lease(name).begin_handover(seconds)
        return {"name": name, "seconds": seconds}

    async def end_handover(self, given: Mapping[str, Any], report: Report) -> Mapping[str, Any]:
        """End a handover and drop the client without the lease; it is no error if none runs."""
        name = Arguments(given, "export").optional("export", TEXT, "")
        return {"name": name, "dropped": self._lease(name).end_handover()}

    async def disconnect(self, given: Mapping[str, Any], report: Report) -> Mapping[str, Any]:
        """Drop all clients of an export.

        A write of theirs that a thread has begun goes on; the next holder's wait for it.
        """
        name = Arguments(given, "export").optional("export", TEXT, "")
        export = known_slot(self._service.exports, name).export
        count = await self._service.clients.end(export) if export else 0
        log.info("clients dropped export=%r count=%d", name, count)
        return {"name": name, "count": count}

    def _lease(self, name: str) -> Lease:
        lease = known_slot(self._service.exports, name).lease
        if lease is None:
            raise CommandError(
                FailureKind.ARGUMENT,
                f"export {name!r} is not exclusive: any number of clients may connect to it",
            )
        return lease
