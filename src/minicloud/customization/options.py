"""Options as they were written → what virt-customize is told; every file is looked at here.

So that whatever is wrong is said before a guest is touched, and so that it does not matter on which
machine virt-customize runs: secrets and keys are read here and travel as content, the operator's
other files as paths.
"""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from minicloud.customization.command import Command
from minicloud.errors import UsageError
from minicloud.inventory.customize import CUSTOMIZE, OPTIONS, Form, fault, with_paths

__all__ = ["read_commands", "registers", "unregisters"]

Option = tuple[str, str]

_FROM_FILE: Final = "commands-from-file"
_SELECTOR = re.compile(r"(locked:)?(file|password):(.+)", re.DOTALL)
_SECRETS: Final = frozenset({Form.SECRET, Form.USER_SECRET, Form.CREDENTIALS})
_STDIN: Final = "-"


def read_commands(options: Iterable[Option], *, may_be_seen: bool = False) -> tuple[Command, ...]:
    """Read options, in order, and the files they name.

    Args:
        options: words of `minicloud.inventory.customize.OPTIONS`, each with its value.
        may_be_seen: the operator has said that a password may stand in the command line.

    Raises:
        UsageError: a value or a file cannot be used, or options contradict each other.
    """
    commands: list[Command] = []
    for word, value in options:
        if (wrong := _wrong(word, value, may_be_seen=may_be_seen)) is not None:
            raise UsageError(f"--{word} takes {wrong}")
        written = _written_in(value) if word == _FROM_FILE else [(word, value)]
        commands += [_command(*option) for option in written]
    _check_together(commands)
    return tuple(commands)


def registers(commands: Sequence[Command]) -> bool:
    """Tell whether a guest is registered by them."""
    return any(command.word == "sm-register" for command in commands)


def unregisters(commands: Sequence[Command]) -> bool:
    """Tell whether a guest that they register is not registered in the end."""
    words = [command.word for command in commands if command.word.endswith("register")]
    return words[-1:] == ["sm-unregister"]


def _written_in(name: str) -> Iterator[Option]:
    """Read a commands file; paths there are relative to it, and passwords there are in a file."""
    path = Path(name).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise _unreadable(path, exc) from None
    for number, line in _lines(text):
        try:
            option = _parsed(line)
        except ValueError as exc:
            raise UsageError(f"line {number}: {exc}", file=path) from None
        yield with_paths(option, path.absolute().parent)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Split a commands file as virt-customize does; a number is that of a line's first part."""
    parts: list[str] = []
    first = 1
    for number, line in enumerate(text.split("\n"), 1):
        if not parts:
            first = number
        goes_on = line.endswith("\\")
        parts.append(line[:-1] if goes_on else line)
        if not goes_on:
            whole = "\n".join(parts)
            if whole.strip() and not whole.startswith("#"):
                yield first, whole
            parts = []
    if "".join(parts).strip():
        yield first, "\n".join(parts)


def _parsed(line: str) -> Option:
    word, _, value = line.partition(" ")
    word = word.removeprefix("--")
    if word == _FROM_FILE:
        raise ValueError("a commands file cannot name another")
    if word not in OPTIONS:
        CUSTOMIZE.parse(word)  # says what is like it
    if (wrong := _wrong(word, value, may_be_seen=True)) is not None:
        raise ValueError(f"{word} takes {wrong}")
    return word, value


def _wrong(word: str, value: str, *, may_be_seen: bool) -> str | None:
    form = OPTIONS[word]
    if form is Form.TEXT and word != "append-line":
        value = value.replace("\n", " ")  # only there is it one more character
    if form in _SECRETS:
        match = _SELECTOR.fullmatch(_selector(form, value))
        if match is not None and match[2] == "password":
            if may_be_seen:
                return None
            return (
                "a password from a file (file:FILE, or file:- for standard input): on the command "
                "line everybody on this machine sees it (ps), and the shell's history keeps it; "
                "or add --allow-insecure-secret"
            )
    return fault(word, value)


def _selector(form: Form, value: str) -> str:
    return value if form is Form.SECRET else value.partition(":")[2]


def _command(word: str, value: str) -> Command:
    match OPTIONS[word]:
        case Form.FILE:
            return Command(word, file=_existing(value))
        case Form.FILE_TO:
            path, _, where = value.partition(":")
            return Command(word, file=_existing(path), after=f":{where}")
        case Form.SECRET | Form.USER_SECRET | Form.CREDENTIALS as form:
            return _secret(word, value, _selector(form, value))
        case Form.KEY:
            return _key(word, value)
        case Form.POOL if value.startswith("file:"):
            return Command(word, f"pool:{_first_line(value.removeprefix('file:'))}")
    return Command(word, value)


def _secret(word: str, value: str, selector: str) -> Command:
    """Take a password out of a selector or its file; `random` and the like need none."""
    match = _SELECTOR.fullmatch(selector)
    if match is None:
        return Command(word, value)
    locked, kind, rest = match.groups(default="")
    secret = rest if kind == "password" else _first_line(rest)
    if not secret:
        raise UsageError(f"--{word}: the password is empty; its file holds it in the first line")
    user = value.removesuffix(selector)
    return Command(word, f"{user}{locked}file:", f"{secret}\n".encode())


def _key(word: str, value: str) -> Command:
    """Read a public key, by default the operator's newest, as ssh-copy-id(1) chooses."""
    user, _, selector = value.partition(":")
    kind, _, rest = selector.partition(":")
    if kind == "string":
        key = rest.encode()
    else:
        path = Path(rest).expanduser() if kind == "file" else _own_key()
        try:
            key = path.read_bytes()
        except OSError as exc:
            raise _unreadable(path, exc) from None
        if b"PRIVATE KEY" in key:
            raise UsageError(f"--{word}: {path} holds a private key; the public one is in a .pub")
    return Command(word, f"{user}:file:", key.rstrip(b"\n") + b"\n")


def _own_key() -> Path:
    folder = Path.home() / ".ssh"
    keys = [path for path in folder.glob("id*.pub") if not path.name.endswith("-cert.pub")]
    if not keys:
        raise UsageError(
            f"--ssh-inject: there is no public key id*.pub in {folder}; name one: USER:file:FILE"
        )
    return max(keys, key=lambda path: path.stat().st_mtime)


def _existing(written: str) -> Path:
    path = Path(os.path.abspath(Path(written).expanduser()))  # noqa: PTH100 -- resolve() would follow links, and lose the name
    if not os.access(path, os.R_OK):
        why = "cannot be read" if path.exists() else "is not there"
        raise UsageError(f"{path} {why}")
    return path


def _first_line(written: str) -> str:
    if written == _STDIN:
        return sys.stdin.readline().rstrip("\n")
    path = Path(written).expanduser()
    try:
        with path.open(encoding="utf-8") as file:
            return file.readline().rstrip("\n")
    except (OSError, UnicodeDecodeError) as exc:
        raise _unreadable(path, exc) from None


def _unreadable(path: Path, exc: OSError | UnicodeDecodeError) -> UsageError:
    why = exc.strerror if isinstance(exc, OSError) else "it is no text in UTF-8"
    return UsageError(f"{path} cannot be read: {why}")


def _check_together(commands: Sequence[Command]) -> None:
    """Refuse what virt-customize would find wrong only when half of it is done."""
    users = [_user(command) for command in commands if command.word in _PASSWORDS]
    for user in users:
        if users.count(user) > 1:
            raise UsageError(f"the password of {user} is set twice; virt-customize takes one")
    words = [command.word for command in commands]
    if words.count("sm-credentials") > 1:
        raise UsageError("--sm-credentials is given twice")
    if "sm-register" in words and "sm-credentials" not in words:
        raise UsageError("--sm-register needs --sm-credentials USER:file:FILE")
    if "sm-credentials" in words and "sm-register" not in words:
        raise UsageError("--sm-credentials is for --sm-register, which is not there")


_PASSWORDS: Final = frozenset({"root-password", "password"})


def _user(command: Command) -> str:
    return "root" if command.word == "root-password" else command.before.partition(":")[0]
