"""The options of virt-customize a template may have, one a text: `install nginx,curl`.

Each is written as a line of virt-customize's `--commands-from-file`: a word, a space, its value.
The word is checked here, a path in the value is found so that it can be taken from where the
inventory stands, and a password in plain sight is refused: secrets stand in files.

The words are those of guestfs-tools 1.56 (customize/customize-options.pod) and the four of a
subscription that it dropped, which minicloud supplies itself.
"""

import enum
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from minicloud.inventory.places import located
from nbdserve.params import Kind, Value, closest

__all__ = ["CUSTOMIZE", "OPTIONS", "Form", "fault", "with_paths"]


class Form(enum.Enum):
    """What follows an option's word."""

    NOTHING = enum.auto()
    TEXT = enum.auto()
    FILE = enum.auto()  # FILE
    FILE_TO = enum.auto()  # FILE:WHERE
    SECRET = enum.auto()  # a password selector: file:FILE, random, disabled, locked[:…]
    USER_SECRET = enum.auto()  # USER:selector
    CREDENTIALS = enum.auto()  # USER:file:FILE
    KEY = enum.auto()  # USER[:file:FILE | :string:KEY]
    POOL = enum.auto()  # auto, pool:ID or file:FILE


OPTIONS: Final[Mapping[str, Form]] = {
    "append-line": Form.TEXT,
    "chmod": Form.TEXT,
    "chown": Form.TEXT,
    "commands-from-file": Form.FILE,
    "copy": Form.TEXT,
    "copy-in": Form.FILE_TO,
    "delete": Form.TEXT,
    "edit": Form.TEXT,
    "firstboot": Form.FILE,
    "firstboot-command": Form.TEXT,
    "firstboot-install": Form.TEXT,
    "hostname": Form.TEXT,
    "install": Form.TEXT,
    "link": Form.TEXT,
    "mkdir": Form.TEXT,
    "move": Form.TEXT,
    "no-logfile": Form.NOTHING,
    "no-selinux-relabel": Form.NOTHING,
    "password": Form.USER_SECRET,
    "password-crypto": Form.TEXT,
    "root-password": Form.SECRET,
    "run": Form.FILE,
    "run-command": Form.TEXT,
    "scrub": Form.TEXT,
    "sm-attach": Form.POOL,
    "sm-credentials": Form.CREDENTIALS,
    "sm-register": Form.NOTHING,
    "sm-unregister": Form.NOTHING,
    "ssh-inject": Form.KEY,
    "tar-in": Form.FILE_TO,
    "timezone": Form.TEXT,
    "touch": Form.TEXT,
    "truncate": Form.TEXT,
    "truncate-recursive": Form.TEXT,
    "uninstall": Form.TEXT,
    "update": Form.NOTHING,
    "upload": Form.FILE_TO,
    "write": Form.TEXT,
}

_NAMED_FILE: Final = re.compile(r"((?:[^:]*:)?(?:locked:)?file:)(.+)")
_SELECTORS: Final = "file:FILE, random, disabled, locked or locked:file:FILE"


def with_paths(option: tuple[str, str], folder: Path) -> tuple[str, str]:
    """Take the path in an option's value from `folder`, unless it is absolute or of one's home."""
    word, value = option
    match OPTIONS[word]:
        case Form.FILE:
            return word, str(located(value, folder))
        case Form.FILE_TO:
            path, colon, where = value.partition(":")
            return word, f"{located(path, folder)}{colon}{where}"
        case Form.SECRET | Form.USER_SECRET | Form.CREDENTIALS | Form.KEY | Form.POOL:
            if (match := _NAMED_FILE.fullmatch(value)) is not None:
                return word, f"{match[1]}{located(match[2], folder)}"
    return option


def _parse_customize(value: Value) -> tuple[str, str]:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("an option of virt-customize and its value, e.g. install nginx")
    word, _, rest = value.strip().partition(" ")
    word, rest = word.removeprefix("--"), rest.strip()
    if word not in OPTIONS:
        raise ValueError(f"virt-customize has no {word!r}; {closest(word, OPTIONS)}")
    if (expected := fault(word, rest)) is not None:
        raise ValueError(f"{word} takes {expected}")
    return word, rest


def fault(word: str, value: str) -> str | None:
    """Say what the value of one of OPTIONS should be, if it is not."""
    form = OPTIONS[word]
    if form is Form.NOTHING:
        return "no value" if value else None
    if not value or "\n" in value:
        return "a value" if not value else "one line"
    is_good, expected = _CHECKS.get(form, (bool, ""))
    return None if is_good(value) else expected


def _is_selector(text: str) -> bool:
    path = text.removeprefix("locked:")
    return text in {"disabled", "locked"} or path == "random" or _is_file(path)


def _is_file(text: str) -> bool:
    return text.startswith("file:") and text != "file:"


def _is_key(text: str) -> bool:
    user, colon, key = text.partition(":")
    return bool(user) and (not colon or _is_file(key) or key.startswith("string:"))


_CHECKS: Final[Mapping[Form, tuple[Callable[[str], bool], str]]] = {
    Form.FILE_TO: (lambda text: all(text.partition(":")), "FILE:WHERE"),
    Form.SECRET: (_is_selector, f"{_SELECTORS}; a password stands in a file, never here"),
    Form.USER_SECRET: (
        lambda text: _is_selector(text.partition(":")[2]),
        f"USER: and {_SELECTORS}; a password stands in a file, never here",
    ),
    Form.CREDENTIALS: (
        lambda text: _is_file(text.partition(":")[2]),
        "USER:file:FILE; a password stands in a file, never here",
    ),
    Form.KEY: (_is_key, "USER, USER:file:FILE or USER:string:KEY"),
    Form.POOL: (
        lambda text: text == "auto" or text.startswith("pool:") or _is_file(text),
        "auto, pool:ID or file:FILE",
    ),
}


CUSTOMIZE: Kind[tuple[str, str]] = Kind(
    "OPTION", _parse_customize, lambda option: " ".join(option).rstrip()
)
