"""The subscription of a guest, also where virt-customize has no words for it.

guestfs-tools 1.56 dropped --sm-credentials, -register, -attach and -unregister. What they did with
subscription-manager is done by scripts here, which virt-customize reads on its side and runs in its
appliance: neither a process of a host nor the guest's disk ever sees the password. Pure.
"""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from minicloud.customization.command import Command

__all__ = ["WORDS", "spelled_out", "undone"]

WORDS: Final = frozenset({"sm-attach", "sm-credentials", "sm-register", "sm-unregister"})
"""What guestfs-tools had for it, as far as minicloud takes it."""

_UNREGISTER: Final = "subscription-manager unregister"


def spelled_out(commands: Iterable[Command]) -> tuple[Command, ...]:
    """Write the words for a subscription as scripts and commands."""
    given = list(commands)
    credentials = next((one for one in given if one.word == "sm-credentials"), None)
    return tuple(_spelled_out(given, credentials))


def undone(commands: Sequence[Command]) -> tuple[Command, ...]:
    """Say what is left to do when they failed somewhere: no guest keeps a subscription by that.

    Returns:
        Nothing where none was to be given back in the end.
    """
    words = [command.word for command in commands]
    if "sm-register" not in words or "sm-unregister" not in words:
        return ()
    # it may have failed before there was one
    script = f"if subscription-manager identity >/dev/null 2>&1; then {_UNREGISTER}; fi"
    return (Command("run-command", script),)


def _spelled_out(commands: Sequence[Command], credentials: Command | None) -> Iterator[Command]:
    for command in commands:
        match command.word:
            case "sm-credentials":
                continue
            case "sm-register":
                assert credentials is not None, "options without them are refused"
                yield _register(credentials)
            case "sm-attach":
                yield Command("run-command", f"subscription-manager attach {_pool(command.before)}")
            case "sm-unregister":
                yield Command("run-command", _UNREGISTER)
            case _:
                yield command


def _register(credentials: Command) -> Command:
    assert isinstance(credentials.file, bytes), "a secret is content"
    user = credentials.before.partition(":")[0]
    password = credentials.file.decode().rstrip("\n")
    script = (
        "#!/bin/sh\nsubscription-manager register "
        f"--username={shlex.quote(user)} --password={shlex.quote(password)}\n"
    )
    return Command("run", file=script.encode())


def _pool(selector: str) -> str:
    kind, _, pool = selector.partition(":")
    return "--auto" if kind == "auto" else f"--pool={shlex.quote(pool)}"
