"""From a spec to an opened chain: one chain an export, shared by all its connections.

Invariants: devices are opened inner first and closed outer first; if one cannot be opened, those
beneath it are closed again before the error goes on.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nbdserve.device import Device
from nbdserve.params import params_from
from nbdserve.registry import find_layer, find_source
from nbdserve.spec import ElementSpec, ExportSpec

__all__ = ["Chain", "open_chain", "resolve"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Chain:
    """An opened chain of devices.

    Attributes:
        devices: the source first, the layer nearest the client last.
    """

    devices: tuple[Device, ...]

    @property
    def outermost(self) -> Device:
        """The device that requests go to."""
        return self.devices[-1]

    async def close(self) -> None:
        """Close every device, outer first; a failing close never keeps the others open."""
        for device in reversed(self.devices):
            await _close(device)


def resolve(spec: ExportSpec) -> list[tuple[str, ElementSpec, type[Device], Any]]:
    """Look up each element of a spec and parse its parameters, source first; opens nothing.

    Returns:
        For each element: how messages call it, its spec, its class and its params.

    Raises:
        ConfigError: an unknown element or a bad parameter.
    """
    found: list[tuple[str, ElementSpec, type[Device], Any]] = []
    classes: Sequence[tuple[str, ElementSpec, type[Device]]] = [
        (f"source {spec.source.name}", spec.source, find_source(spec.source.name)),
        *((f"layer {e.name}", e, find_layer(e.name)) for e in reversed(spec.layers)),
    ]
    for label, element, cls in classes:
        params = params_from(cls.Params, element.given, element=label, file=spec.file)
        found.append((label, element, cls, params))
    return found


async def open_chain(spec: ExportSpec) -> Chain:
    """Build and open the chain a spec describes.

    Raises:
        ConfigError: the spec is wrong as written.
        DeviceError: an element could not be opened; nothing is left open.
    """
    resolved = resolve(spec)
    read_only = _read_only_below(spec, [cls for _, _, cls, _ in resolved])
    opened: list[Device] = []
    try:
        for (_, _, cls, params), only_read in zip(resolved, read_only, strict=True):
            make: Any = cls  # Source(params) or Layer(inner, params), as device.py says
            device: Device = make(opened[-1], params) if opened else make(params)
            await device.open(read_only=only_read)
            opened.append(device)
    except BaseException:
        for device in reversed(opened):
            await _close(device)
        raise
    return Chain(tuple(opened))


def _read_only_below(spec: ExportSpec, classes: Sequence[type[Device]]) -> list[bool]:
    """Tell for each class, source first, whether nothing above it will write to it."""
    answers = []
    read_only = spec.read_only
    for cls in reversed(classes):
        answers.append(read_only)
        read_only = read_only or not getattr(cls, "writes_inner", True)
    return answers[::-1]


async def _close(device: Device) -> None:
    try:
        await device.close()
    except Exception:
        log.exception("closing a device failed device=%s", type(device).__name__)
