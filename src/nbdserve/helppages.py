"""Help pages of sources and layers, out of what the code declares: docstring and parameters."""

import inspect
from typing import Any

from nbdserve.device import Device
from nbdserve.errors import ConfigError
from nbdserve.params import Param, closest, params_of
from nbdserve.registry import find_layer, find_source, layer_names, source_names

__all__ = ["default_text", "element_page"]


def element_page(name: str) -> str:
    """Make the text of `nbdserve --help ELEMENT`.

    Raises:
        ConfigError: there is no such source or layer.
    """
    if name in source_names():
        return _page(f"source {name}", find_source(name), _source_usage(name))
    if name in layer_names():
        usage = f"nbdserve --layer {name}[:key=value[,key=value]…] … SOURCE …"
        return _page(f"layer {name}", find_layer(name), usage)
    known = closest(name, [*source_names(), *layer_names()])
    raise ConfigError(f"no source or layer is called {name!r}; {known}")


def default_text(param: Param) -> str:
    """Say what holds when a parameter is not given."""
    if param.required:
        return "required"
    if param.default is None or param.default == ():
        return "optional"
    return f"default {param.kind.show(param.default)}"


def _source_usage(name: str) -> str:
    params = params_of(find_source(name).Params)
    argument = "".join(f" [{p.key.upper()}]" for p in params if p.argument)
    return f"nbdserve [options] {name}{argument} [key=value …]"


def _page(title: str, cls: type[Device], usage: str) -> str:
    lines = [title, "", f"  {usage}", "", inspect.getdoc(cls) or "", ""]
    params = params_of(cls.Params)
    if params:
        lines += ["Keys:", ""]
        lines += [line for param in params for line in _lines(param)]
    return "\n".join(lines).rstrip() + "\n"


def _lines(param: Any) -> list[str]:
    notes = [default_text(param)]
    if param.argument:
        notes.append("also the bare argument")
    if param.many:
        notes.append("may be given several times")
    return [f"  {param.key}={param.kind.name}", f"      {param.help} ({'; '.join(notes)})"]
