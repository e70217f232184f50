"""The kinds of values an inventory holds, beyond those that nbdserve's parameters have.

Each reads one value as written and says what it expects where that will not do. Nothing here looks
at the disk or the network. What becomes a word on a command line (a host, a user) never begins
with "-".
"""

import enum
import re
from collections.abc import Callable
from typing import Final, TypeVar
from urllib.parse import urlsplit

from minicloud.inventory.places import NAME_PATTERN
from minicloud.model.inventory import Bus, VirtType
from nbdserve.errors import ConfigError
from nbdserve.params import PORT, Kind, Value, closest
from nbdserve.spec import parse_layer

__all__ = [
    "BUS",
    "CPU",
    "HOST",
    "IMAGE",
    "LAYER",
    "LOCAL_PATH",
    "MAC",
    "NAME",
    "NETWORK",
    "NETWORK_MODEL",
    "REMOTE_PATH",
    "SHA256",
    "SHA512",
    "SSH_PORT",
    "TARGET",
    "USER",
    "VIRT_TYPE",
    "WORD",
    "is_url",
]

E = TypeVar("E", bound=enum.StrEnum)

_SCHEMES: Final = ("http://", "https://")
_MAC: Final = re.compile(r"[0-9a-f]{2}([:-])[0-9a-f]{2}(?:\1[0-9a-f]{2}){4}")
_MULTICAST: Final = 1  # IEEE 802: the lowest bit of the first byte; no card has such an address
_CPU: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_NETWORK: Final = re.compile(r"(?:network|bridge):[A-Za-z0-9][A-Za-z0-9_.-]*|user|none")


def is_url(image: str) -> bool:
    """Tell an image on a web server from a path."""
    return image.lower().startswith(_SCHEMES)


def _text(value: Value) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text, not empty")
    return value.strip()


def _matching(pattern: re.Pattern[str], expected: str) -> Callable[[Value], str]:
    def parse(value: Value) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ValueError(expected)
        return value

    return parse


def _hex(digits: int, program: str) -> Callable[[Value], str]:
    pattern = re.compile(rf"[0-9a-f]{{{digits}}}")

    def parse(value: Value) -> str:
        text = str(value).strip().lower()
        if not pattern.fullmatch(text):
            raise ValueError(f"{digits} hexadecimal digits, as {program} prints them")
        return text

    return parse


def _word_of(words: type[E]) -> Kind[E]:
    known = [word.value for word in words]

    def parse(value: Value) -> E:
        if value not in known:
            raise ValueError(f"one of {', '.join(known)}")
        return words(value)

    return Kind("|".join(known), parse)


def _is_word(text: str) -> bool:
    return not text.startswith("-") and all(c.isprintable() and not c.isspace() for c in text)


def _parse_target(value: Value) -> str:
    text = _text(value)
    if not _is_word(text):
        raise ValueError("a name or an address, without spaces, not beginning with a hyphen")
    return text


def _parse_host(value: Value) -> str:
    text = _parse_target(value)
    if "@" in text:
        raise ValueError("a name or an address alone; the user has a key of its own")
    return text


def _parse_user(value: Value) -> str:
    text = _text(value)
    if not _is_word(text):
        raise ValueError("a user's name")
    return text


def _parse_ssh_port(value: Value) -> int:
    port = PORT.parse(value)
    if port == 0:
        raise ValueError("a port from 1 to 65535")
    return port


def _parse_mac(value: Value) -> str:
    text = str(value).strip().lower()
    if not _MAC.fullmatch(text):
        raise ValueError("six bytes such as 74:d4:35:51:ab:86, as `ip link` prints them")
    if int(text[:2], 16) & _MULTICAST:
        raise ValueError("a multicast address, which no card has; see `ip link` on the node")
    return text.replace("-", ":")


def _parse_remote_path(value: Value) -> str:
    if not isinstance(value, str) or not value.startswith("/"):
        raise ValueError("a path from the root, beginning with /")
    return value


def _parse_image(value: Value) -> str:
    text = _text(value)
    if "://" not in text:
        return text
    if not is_url(text):
        raise ValueError("an http:// or https:// URL, or a path on the export server")
    try:
        host = urlsplit(text).hostname
    except ValueError as exc:
        raise ValueError(f"a URL ({exc})") from None
    if not host:
        raise ValueError("a URL with a host, such as https://example.com/debian-12.raw.xz")
    return text


def _parse_layer(value: Value) -> str:
    # the registry looks for plugins, and takes a while to import for that
    from nbdserve.registry import builtin_layers, layer_names  # noqa: PLC0415

    text = _text(value)
    try:
        name = parse_layer(text).name
    except ConfigError as exc:
        raise ValueError(str(exc)) from None
    # those of plugins are asked for last: it takes reading what every package installed says
    if name not in builtin_layers() and name not in layer_names():
        raise ValueError(f"no layer is called {name!r}; {closest(name, layer_names())}")
    return text


NAME: Kind[str] = Kind(
    "NAME", _matching(NAME_PATTERN, "a name of letters, digits, and inside it . _ -")
)
WORD: Kind[str] = Kind(
    "WORD", _matching(NAME_PATTERN, "a word of letters, digits, and inside it . _ -")
)
HOST: Kind[str] = Kind("HOST", _parse_host)
TARGET: Kind[str] = Kind("[USER@]HOST", _parse_target)
USER: Kind[str] = Kind("USER", _parse_user)
SSH_PORT: Kind[int] = Kind("PORT", _parse_ssh_port)
MAC: Kind[str] = Kind("MAC", _parse_mac)
LOCAL_PATH: Kind[str] = Kind("FILE", _text)
REMOTE_PATH: Kind[str] = Kind("PATH", _parse_remote_path)
VIRT_TYPE: Kind[VirtType] = _word_of(VirtType)
BUS: Kind[Bus] = _word_of(Bus)
CPU: Kind[str] = Kind(
    "CPU",
    _matching(_CPU, "maximum, host-model, host-passthrough or a model, as `virsh cpu-models` says"),
)
NETWORK: Kind[str] = Kind(
    "NETWORK", _matching(_NETWORK, "network:NAME, bridge:NAME, user or none, e.g. network:default")
)
NETWORK_MODEL: Kind[str] = Kind(
    "MODEL", _matching(NAME_PATTERN, "a kind of network card, e.g. virtio")
)
IMAGE: Kind[str] = Kind("URL|PATH", _parse_image)
LAYER: Kind[str] = Kind("LAYER", _parse_layer)
SHA256: Kind[str] = Kind("HEX", _hex(64, "sha256sum"))
SHA512: Kind[str] = Kind("HEX", _hex(128, "sha512sum"))
