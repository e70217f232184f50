"""Typed parameters of sources and layers, declared once and used everywhere.

An element's parameters are a frozen dataclass whose fields are made by `param`. The command line,
the TOML configuration, `--help ELEMENT` and the reference pages all read that one declaration.

    @dataclass(frozen=True, slots=True, kw_only=True)
    class SliceParams:
        offset: int = param(SIZE, default=0, help="where the slice starts")

A field `max_block` is the key `max-block`.
"""

import dataclasses
import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from nbdserve.errors import ConfigError

__all__ = [
    "BOOLEAN",
    "COUNT",
    "DURATION",
    "FRACTION",
    "INTEGER",
    "MODE",
    "PATH",
    "PORT",
    "SIZE",
    "TEXT",
    "TIMEOUT",
    "Given",
    "Kind",
    "Param",
    "Value",
    "choice",
    "closest",
    "param",
    "params_from",
    "params_of",
    "shown",
]

T = TypeVar("T")

Value = str | int | float | bool
"""A parameter's value as written: text on the command line, a scalar in TOML."""

Given = Sequence[tuple[str, Value]]
"""Keys and values in the order written; a key may come more than once."""

_LONGEST_SHOWN = 100
_METADATA = "nbdserve"
_REQUIRED: Any = object()

_SIZE = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)\s*([KMGTPE]?)(?:i?B)?", re.IGNORECASE)
_MOST = (1 << 63) - 1  # off_t; clients take a size for a signed number too
_SIZE_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50, "E": 60}
_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)\s*(ms|s|m|h|)")
_DURATION_UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_MODE = re.compile(r"[0-7]{1,3}|0[0-7]{3}")
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """A kind of value: how it is called, read and written.

    Attributes:
        name: the placeholder in help pages, e.g. SIZE.
        parse: from a value as written; raises ValueError with what is expected.
        show: from a value to text that `parse` reads back.
    """

    name: str
    parse: Callable[[Value], T]
    show: Callable[[T], str] = str


@dataclass(frozen=True, slots=True)
class Param:
    """One declared parameter, as help pages and parsers see it.

    Attributes:
        field: the dataclass field's name.
        key: the key an operator writes.
        kind: what its value is.
        help: one sentence, lower case, no full stop.
        default: the default value; meaningless if `required`.
        required: whether it must be given.
        argument: whether the source's bare ARG sets it.
        many: whether it may be given more than once; the field then holds a tuple.
    """

    field: str
    key: str
    kind: Kind[Any]
    help: str
    default: Any
    required: bool
    argument: bool
    many: bool


def param(
    kind: Kind[T],
    *,
    help: str,  # noqa: A002 -- the word every reader expects here
    default: Any = _REQUIRED,
    argument: bool = False,
    many: bool = False,
) -> Any:
    """Declare a parameter as a dataclass field; without `default` it is required.

    Args:
        kind: one of the kinds of this module, or one of the element's own.
        help: one sentence, lower case, no full stop.
        default: the value when it is not given; None is allowed; a tuple where `many`.
        argument: the bare ARG after the source's name sets it; one a source at most.
        many: may be given more than once; the field is a tuple of values.
    """
    metadata = {_METADATA: (kind, help, argument, many)}
    if default is _REQUIRED:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def params_of(cls: type[Any]) -> list[Param]:
    """List the parameters a params dataclass declares, in order."""
    found = []
    for field in dataclasses.fields(cls):
        kind, text, argument, many = field.metadata[_METADATA]
        required = field.default is dataclasses.MISSING
        key = field.name.replace("_", "-")
        default = None if required else field.default
        found.append(Param(field.name, key, kind, text, default, required, argument, many))
    return found


def params_from(cls: type[T], given: Given, *, element: str, file: Path | None = None) -> T:
    """Make an element's params from keys and values as written.

    Args:
        cls: the params dataclass.
        given: keys (hyphens or underscores) and values; the key "" is the bare ARG.
        element: how the element is called in messages, e.g. `layer xz`.
        file: the configuration file it was written in, if any.

    Raises:
        ConfigError: an unknown or repeated key, a bad value, a missing required key.
    """
    declared = {p.key: p for p in params_of(cls)}
    values: dict[str, Any] = {}
    for written, value in given:
        found = _declared(declared, written, element, file)
        try:
            parsed = found.kind.parse(value)
        except ValueError as exc:
            raise ConfigError(
                f"{shown(value)} will not do: {exc}", file=file, table=element, key=found.key
            ) from None
        if found.many:
            values[found.field] = (*values.get(found.field, ()), parsed)
        elif found.field in values:
            raise ConfigError("given twice", file=file, table=element, key=found.key)
        else:
            values[found.field] = parsed
    for p in declared.values():
        if p.required and p.field not in values:
            wanted = p.kind.name if p.argument else f"{p.key}={p.kind.name}"
            raise ConfigError(f"needs {wanted}: {p.help}", file=file, table=element)
    return cls(**values)


def _declared(
    declared: Mapping[str, Param], written: str, element: str, file: Path | None
) -> Param:
    if written == "":
        for p in declared.values():
            if p.argument:
                return p
        raise ConfigError("takes no argument, only key=value", file=file, table=element)
    found = declared.get(written.replace("_", "-"))
    if found is not None:
        return found
    raise ConfigError(
        f"unknown key {written!r}; {closest(written, declared)}", file=file, table=element
    )


def shown(value: object) -> str:
    """Write a value as a message has it: one of half a megabyte would drown the rest."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def closest(written: str, known: Iterable[str]) -> str:
    """Say which known word was probably meant, or which there are."""
    names = sorted(known)
    near = difflib.get_close_matches(written, names, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}?" + (f" (known: {', '.join(names)})" if names else "")
    return f"known: {', '.join(names)}" if names else "it takes none"


def _parse_size(value: Value) -> int:
    match = _SIZE.fullmatch(str(value).strip())
    if match is None or isinstance(value, bool):
        raise ValueError("a size in bytes, with K, M, G or T for powers of 1024, e.g. 64M")
    number, unit = match.groups()
    shift = _SIZE_UNITS[unit.upper()]
    # integers stay exact: a float loses the last bytes of a large image
    size = int(number) << shift if number.isdigit() else int(float(number) * (1 << shift))
    if size > _MOST:
        raise ValueError("a size is less than 8E")
    return size


def _show_size(value: int) -> str:
    for unit in ("T", "G", "M", "K"):
        if value and value % (1 << _SIZE_UNITS[unit]) == 0:
            return f"{value >> _SIZE_UNITS[unit]}{unit}"
    return str(value)


def _parse_duration(value: Value) -> float:
    match = None if isinstance(value, bool) else _DURATION.fullmatch(str(value).strip())
    if match is None:
        raise ValueError("a duration such as 500ms, 30s, 5m or 1h (a bare number is seconds)")
    number, unit = match.groups()
    return float(number) * _DURATION_UNITS[unit]


def _show_duration(value: float) -> str:
    if 0 < value < 1:
        return f"{value * 1000:g}ms"
    return f"{value:g}s"


def _parse_timeout(value: Value) -> float:
    seconds = _parse_duration(value)
    if seconds == 0:
        raise ValueError("a duration over 0; nothing is done in no time")
    return seconds


def _parse_count(value: Value) -> int:
    number = _parse_integer(value)
    if number == 0:
        raise ValueError("a whole number, 1 or more")
    return number


def _parse_mode(value: Value) -> int:
    if not isinstance(value, str) or not _MODE.fullmatch(value):
        raise ValueError('an octal mode from "0" to "777"')
    return int(value, 8)


def _parse_integer(value: Value) -> int:
    text = "" if isinstance(value, bool) else str(value).strip()
    if not (text.isascii() and text.isdigit()):
        raise ValueError("a whole number, not negative")
    return int(text)


def _parse_port(value: Value) -> int:
    text = "" if isinstance(value, bool) else str(value).strip()
    if not (text.isascii() and text.isdigit()) or int(text) > 0xFFFF:
        raise ValueError("a port from 0 to 65535")
    return int(text)


def _parse_boolean(value: Value) -> bool:
    word = str(value).strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("true or false")


def _parse_fraction(value: Value) -> float:
    text = str(value).strip()
    try:
        number = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise ValueError("a fraction such as 0.01 or 1%")
    return number


def _parse_text(value: Value) -> str:
    return str(value)


def _parse_path(value: Value) -> Path:
    if not isinstance(value, str) or not value:
        raise ValueError("a path")
    return Path(value).expanduser()


SIZE: Kind[int] = Kind("SIZE", _parse_size, _show_size)
DURATION: Kind[float] = Kind("DURATION", _parse_duration, _show_duration)
INTEGER: Kind[int] = Kind("N", _parse_integer)
COUNT: Kind[int] = Kind("N", _parse_count)
TIMEOUT: Kind[float] = Kind("DURATION", _parse_timeout, _show_duration)
MODE: Kind[int] = Kind("MODE", _parse_mode, lambda mode: f"{mode:o}")
PORT: Kind[int] = Kind("PORT", _parse_port)
BOOLEAN: Kind[bool] = Kind("BOOL", _parse_boolean, lambda value: "true" if value else "false")
FRACTION: Kind[float] = Kind("FRACTION", _parse_fraction)
TEXT: Kind[str] = Kind("TEXT", _parse_text)
PATH: Kind[Path] = Kind("PATH", _parse_path)


def choice(*words: str) -> Kind[str]:
    """Make the kind whose values are these words."""

    def parse(value: Value) -> str:
        word = str(value)
        if word not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return word

    return Kind("|".join(words), parse)
