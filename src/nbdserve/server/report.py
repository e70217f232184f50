"""The status of a running daemon, as plain values for a program or a person. No I/O."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from nbdserve import __version__
from nbdserve.build import Chain
from nbdserve.device import Device
from nbdserve.protocol.constants import TransmissionFlag
from nbdserve.server.clients import Clients
from nbdserve.server.exports import Exports, Slot
from nbdserve.server.lease import Lease
from nbdserve.server.listener import Listener
from nbdserve.spec import ExportSpec

__all__ = ["Service", "report_export", "report_status"]


@dataclass(slots=True)
class Service:
    """A running daemon, for who looks at it.

    Attributes:
        exports: what it serves.
        clients: whom.
        listeners: where.
        started: when, on the monotonic clock in seconds.
        is_draining: whether it is about to end.
    """

    exports: Exports
    clients: Clients
    listeners: Sequence[Listener] = ()
    started: float = field(default_factory=time.monotonic)
    is_draining: bool = False


def report_status(service: Service) -> Mapping[str, Any]:
    """Tell all there is to tell."""
    now = time.monotonic()
    clients = service.clients.facts()
    return {
        "version": __version__,
        "pid": os.getpid(),
        "uptime": round(now - service.started, 3),
        "state": "draining" if service.is_draining else "serving",
        "listeners": [listener.uri("") for listener in service.listeners],
        "clients": [
            {
                "peer": client.peer,
                "export": client.export,
                "requests": client.requests,
                "seconds": round(now - client.started, 3),
            }
            for client in clients
        ],
        "exports": [
            report_export(slot, sum(client.export == slot.spec.name for client in clients))
            for slot in service.exports.slots()
        ],
    }


def report_export(slot: Slot, connections: int) -> Mapping[str, Any]:
    """Tell about one export; what is known only of an open one is None of another."""
    facts = slot.export.facts if slot.export else None
    return {
        "name": slot.spec.name,
        "description": slot.spec.description,
        "open": facts is not None,
        "error": slot.failure,
        "size": facts.size if facts else None,
        "flags": _flags(facts.flags) if facts else None,
        "connections": connections,
        "in_use": bool(slot.works),
        "exclusive": slot.spec.exclusive,
        "lease": _lease(slot.lease) if slot.lease else None,
        "added": slot.table is not None,
        "age": None if slot.since is None else round(max(0.0, time.time() - slot.since), 3),
        "devices": _devices(slot.spec, slot.chain),
    }


def _lease(lease: Lease) -> Mapping[str, Any]:
    """Tell who has an exclusive export; `handover` is None where none runs."""
    holder, other, seconds, passed = lease.facts()
    handover = None
    if seconds is not None or other is not None:
        handover = {"seconds": round(seconds or 0.0, 3), "other": other, "passed": passed}
    return {"holder": holder, "handover": handover}


def _flags(flags: TransmissionFlag) -> list[str]:
    return [
        str(flag.name).lower().removeprefix("send_")
        for flag in flags
        if flag is not TransmissionFlag.HAS_FLAGS
    ]


def _devices(spec: ExportSpec, chain: Chain | None) -> list[dict[str, Any]]:
    """List the elements of a chain, nearest the client first."""
    names = [*(layer.name for layer in spec.layers), spec.source.name]
    if chain is None:
        return [{"element": name, "status": {}} for name in names]
    # fewer devices than names where one stands in for what is away (`nbdserve.absent`)
    devices = reversed(chain.devices)
    return [
        {"element": name, "status": _facts(device) if device else {}}
        for name, device in zip_longest(names, devices)
    ]


def _facts(device: Device) -> dict[str, Any]:
    """Ask a device for its facts; one that breaks its contract hides no other's."""
    try:
        return {
            key: value if isinstance(value, int | float | str) else str(value)
            for key, value in device.status().items()
        }
    except Exception as exc:  # noqa: BLE001 -- it may be anybody's
        return {"error": f"{type(exc).__name__}: {exc}"}
