"""What a spec comes to before anything is opened: its elements looked up, and how each is opened.

The pure half of `nbdserve.build`. A plan tells of each element whether anything may write to it,
and so whether chains that begin alike may share it.
"""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nbdserve.device import Device
from nbdserve.params import params_from, params_of
from nbdserve.registry import find_layer, find_source
from nbdserve.spec import ElementSpec, ExportSpec

__all__ = ["Step", "plan", "resolve"]


class Step(NamedTuple):
    """How one element of a chain is opened.

    Attributes:
        label: how messages call it, e.g. `layer xz`.
        cls: its class.
        params: its parameters.
        read_only: nothing will ever be written to it.
        shared: it, and so all beneath it, may serve several chains.
        beneath: the elements beneath it, as `Layer.beneath` tells them.
    """

    label: str
    cls: type[Device]
    params: Any
    read_only: bool
    shared: bool
    beneath: str

    @property
    def key(self) -> Hashable:
        """What two shared steps have in common if one device can stand for both."""
        return self.cls, self.params


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


def plan(spec: ExportSpec) -> list[Step]:
    """Say how the chain of a spec is opened, source first.

    Raises:
        ConfigError: the spec is wrong as written.
    """
    resolved = resolve(spec)
    classes = [cls for _, _, cls, _ in resolved]
    steps: list[Step] = []
    writable, shared = True, True
    lines: list[str] = []
    for (label, element, cls, params), unwritten in zip(
        resolved, _unwritten(spec, classes), strict=True
    ):
        writable = not cls.shareable or (writable and cls.writable)
        read_only = unwritten or not writable
        shared = shared and cls.shareable and read_only
        steps.append(Step(label, cls, params, read_only, shared, "\n".join(lines)))
        lines.append(_line(element.name, cls, params))
    return steps


def _line(name: str, cls: type[Device], params: Any) -> str:
    """Spell an element out so that it is told from any other, and the same however it was written.

    Defaults are left out, so that a parameter that a later version adds changes nothing.
    """
    words = []
    for declared in params_of(cls.Params):
        value = getattr(params, declared.field)
        if not declared.required and value == declared.default:
            continue
        for one in value if declared.many else (value,):
            # a relative path means another file when the daemon is started elsewhere
            text = str(one.absolute()) if isinstance(one, Path) else declared.kind.show(one)
            words.append(f"{declared.key}={text!r}")
    return " ".join([name, *sorted(words)])


def _unwritten(spec: ExportSpec, classes: Sequence[type[Device]]) -> list[bool]:
    """Tell for each class, source first, whether nothing above it will write to it."""
    answers = []
    read_only = spec.read_only
    for cls in reversed(classes):
        answers.append(read_only)
        read_only = read_only or not getattr(cls, "writes_inner", True)
    return answers[::-1]
