"""Specs: what the operator wrote, as plain values, before anything is looked up or opened.

The command line and the TOML configuration both end here. Invariant: `layers[0]` is nearest the
client, `layers[-1]` nearest the source, as they are written from left to right.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nbdserve.errors import ConfigError
from nbdserve.params import Given, Kind, Value
from nbdserve.protocol.constants import MAX_STRING

__all__ = ["WIRE_TEXT", "ElementSpec", "ExportSpec", "parse_layer", "parse_source"]

_KEY = re.compile(r"([a-z][a-z0-9_-]*)=(.*)", re.DOTALL)
_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_COMMA = re.compile(r"(?<!\\),")


@dataclass(frozen=True, slots=True)
class ElementSpec:
    """A source or layer as written: its name, and its keys and values in order.

    The key "" holds a source's bare ARG.
    """

    name: str
    given: Given = ()


@dataclass(frozen=True, slots=True)
class ExportSpec:
    """One export as written.

    Attributes:
        source: the device at the bottom of the chain.
        layers: nearest the client first.
        name: the export name clients ask for.
        description: free text for LIST and INFO.
        read_only: refuse writes whatever the chain can do.
        exclusive: let in one client at a time.
        file: the configuration file it stands in, for messages.
    """

    source: ElementSpec
    layers: tuple[ElementSpec, ...] = ()
    name: str = ""
    description: str = ""
    read_only: bool = False
    exclusive: bool = False
    file: Path | None = None


def _parse_wire_text(value: Value) -> str:
    text = str(value)
    try:
        fits = len(text.encode()) <= MAX_STRING and "\0" not in text
    except UnicodeEncodeError:  # bytes of the command line that are no UTF-8
        fits = False
    if not fits:
        raise ValueError(f"at most {MAX_STRING} bytes of UTF-8 without NUL")
    return text


WIRE_TEXT: Kind[str] = Kind("TEXT", _parse_wire_text)
"""A text that clients are told: the name of an export, its description."""


def parse_layer(text: str) -> ElementSpec:
    r"""Parse `NAME[:key=value[,key=value]…]`; a comma in a value is written `\,`.

    Raises:
        ConfigError: not of that form.
    """
    name, colon, rest = text.partition(":")
    if not _NAME.fullmatch(name) or (colon and not rest):
        raise ConfigError(f"{text!r} is no layer; write NAME or NAME:key=value,key=value")
    given = []
    for word in _COMMA.split(rest) if rest else []:
        match = _KEY.fullmatch(word.replace("\\,", ","))
        if match is None:
            raise ConfigError(f"{word!r} is not key=value", table=f"layer {name}")
        given.append((match[1], match[2]))
    return ElementSpec(name, tuple(given))


def parse_source(words: Sequence[str]) -> ElementSpec:
    """Parse `SOURCE [ARG] [key=value …]`.

    An ARG that looks like key=value (a file named `a=b`) is written `path=a=b` or `./a=b`.

    Raises:
        ConfigError: no words, or more than one ARG.
    """
    if not words:
        raise ConfigError("no source is named; write for example: nbdserve file disk.img")
    name, *rest = words
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is not the name of a source; write for example: {_guess(name)}"
        )
    given: list[tuple[str, str]] = []
    for word in rest:
        match = _KEY.fullmatch(word)
        if match is not None:
            given.append((match[1], match[2]))
        elif any(key == "" for key, _ in given):
            raise ConfigError(f"one argument too many: {word!r}", table=f"source {name}")
        else:
            given.append(("", word))
    return ElementSpec(name, tuple(given))


def _guess(word: str) -> str:
    if word.startswith(("http://", "https://")):
        return f"nbdserve http {word}"
    return f"nbdserve file {word}"
