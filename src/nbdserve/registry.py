"""Where a source's or layer's name leads: built-ins first, then installed entry points.

A class is imported only when its name is used, so `nbdserve file x` does not pay for aiohttp.
A third party adds an element by declaring an entry point in `nbdserve.sources` or
`nbdserve.layers`; it cannot replace a built-in.
"""

import importlib
from collections.abc import Mapping
from importlib import metadata

from nbdserve.device import Device, Layer
from nbdserve.errors import ConfigError
from nbdserve.params import closest

__all__ = [
    "builtin_layers",
    "builtin_sources",
    "find_layer",
    "find_source",
    "layer_names",
    "source_names",
]

_SOURCES: Mapping[str, str] = {
    "data": "nbdserve.sources.data:DataSource",
    "file": "nbdserve.sources.file:FileSource",
    "http": "nbdserve.sources.http:HttpSource",
    "memory": "nbdserve.sources.memory:MemorySource",
    "null": "nbdserve.sources.null:NullSource",
    "pattern": "nbdserve.sources.pattern:PatternSource",
}

_LAYERS: Mapping[str, str] = {
    "cache": "nbdserve.layers.cache:CacheLayer",
    "cow": "nbdserve.layers.cow:CowLayer",
    "delay": "nbdserve.layers.delay:DelayLayer",
    "error": "nbdserve.layers.error:ErrorLayer",
    "grow": "nbdserve.layers.grow:GrowLayer",
    "log": "nbdserve.layers.log:LogLayer",
    "readahead": "nbdserve.layers.readahead:ReadaheadLayer",
    "readonly": "nbdserve.layers.readonly:ReadonlyLayer",
    "slice": "nbdserve.layers.slice:SliceLayer",
    "stats": "nbdserve.layers.stats:StatsLayer",
    "xz": "nbdserve.layers.xz:XzLayer",
}


def builtin_sources() -> list[str]:
    """List the sources that come with nbdserve."""
    return sorted(_SOURCES)


def builtin_layers() -> list[str]:
    """List the layers that come with nbdserve."""
    return sorted(_LAYERS)


def source_names() -> list[str]:
    """List every source that can be named, built in or installed."""
    return sorted({*_SOURCES, *metadata.entry_points(group="nbdserve.sources").names})


def layer_names() -> list[str]:
    """List every layer that can be named, built in or installed."""
    return sorted({*_LAYERS, *metadata.entry_points(group="nbdserve.layers").names})


def find_source(name: str) -> type[Device]:
    """Import the source called `name`.

    Raises:
        ConfigError: there is none, or it cannot be imported.
    """
    found = _find(name, _SOURCES, "source")
    if not issubclass(found, Device) or issubclass(found, Layer):
        raise ConfigError(f"source {name!r} is not a Device; its package is at fault")
    return found


def find_layer(name: str) -> type[Layer]:
    """Import the layer called `name`.

    Raises:
        ConfigError: there is none, or it cannot be imported.
    """
    found = _find(name, _LAYERS, "layer")
    if not issubclass(found, Layer):
        raise ConfigError(f"layer {name!r} is not a Layer; its package is at fault")
    return found


def _find(name: str, builtin: Mapping[str, str], what: str) -> type:
    try:
        if name in builtin:
            module, _, attribute = builtin[name].partition(":")
            loaded = getattr(importlib.import_module(module), attribute)
        else:
            points = metadata.entry_points(group=f"nbdserve.{what}s", name=name)
            if not points:
                raise ConfigError(f"unknown {what} {name!r}; {_hint(name, what)}")
            loaded = next(iter(points)).load()
    except (ImportError, AttributeError) as exc:
        raise ConfigError(f"{what} {name!r} cannot be loaded: {exc}") from exc
    if not isinstance(loaded, type):
        raise ConfigError(f"{what} {name!r} is not a class; its package is at fault")
    return loaded


def _hint(name: str, what: str) -> str:
    names, others = source_names(), layer_names()
    if what == "layer":
        names, others = others, names
    if name in others:
        other = "source" if what == "layer" else "layer"
        return f"{name!r} is a {other}" + (
            f": write --layer {name}" if other == "layer" else ", it goes last on the command line"
        )
    return closest(name, names)
