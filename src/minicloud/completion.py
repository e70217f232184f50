"""Completion for shells: commands and options, and the names that the inventory holds.

argcomplete runs this program for each Tab, so nothing is asked over the network, no template that
is a program is run, and only the module of the command on the line is imported. What an argument is
called in its usage (TEMPLATE, NODE, FILE) says what completes it; so commands know nothing of this.
An inventory that cannot be read, or is half written, completes as far as its names can be seen.
"""

import argparse
import os
import shlex
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from minicloud.errors import UsageError
from minicloud.inventory.places import find_inventory, scripts_beside

__all__ = ["SHELLS", "attach", "complete", "node_names", "snippet", "template_names"]

SHELLS: Final = ("bash", "zsh", "fish")

_ASKED: Final = "_ARGCOMPLETE"  # set by the snippet
_PROGRAM: Final = "minicloud"
_FILES: Final = frozenset({"FILE", "PATH", "DIR", "FOLDER"})

_Completer = Callable[..., list[str]]


def complete(
    parser: Callable[..., argparse.ArgumentParser], commands: Mapping[str, object]
) -> None:
    """Answer the shell and end, if it is one that asks; else do nothing.

    Args:
        parser: makes the parser, with the options of the commands it is given.
        commands: names of all of them.
    """
    if _ASKED not in os.environ:
        return
    import argcomplete  # noqa: PLC0415 -- wanted at a Tab only
    from argcomplete.completers import FilesCompleter, SuppressCompleter  # noqa: PLC0415

    asked = next(
        (word for word in _words(os.environ.get("COMP_LINE", "")) if word in commands), None
    )
    made = parser(*([asked] if asked else []))
    attach(made, files=FilesCompleter())
    argcomplete.autocomplete(made, default_completer=SuppressCompleter())


def snippet(shell: str) -> str:
    """Give what a shell evaluates to complete from now on.

    Raises:
        UsageError: argcomplete is not installed.
    """
    try:
        from argcomplete.shell_integration import shellcode  # noqa: PLC0415 -- may be missing
    except ImportError:
        raise UsageError(
            "completion needs argcomplete, which is not installed: pip install argcomplete"
        ) from None
    return shellcode([_PROGRAM], shell=shell)


def attach(parser: argparse.ArgumentParser, *, files: Callable[..., Any]) -> None:
    """Say for each argument of a parser, and of its commands, what completes it.

    Args:
        parser: gets attributes that argcomplete looks for.
        files: completes what names a file.
    """
    for action in _actions(parser):
        shown = str(action.metavar or "").strip("[]")
        completer: Callable[..., Any] | None = {
            "TEMPLATE": template_names,
            "NODE": node_names,
        }.get(shown)
        if shown in _FILES or action.type is Path:
            completer = files
        elif "NODE:" in str(action.metavar or ""):
            completer = _node_prefixes
        if completer is not None:
            action.completer = completer  # type: ignore[attr-defined]  # argcomplete's way


def template_names(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """List the templates that begin like this; no program is run."""
    path = _inventory(parsed_args)
    names = [*_names(path, "templates"), *scripts_beside(path)]
    return [name for name in dict.fromkeys(names) if name.startswith(prefix)]


def node_names(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """List the nodes that begin like this."""
    names = _names(_inventory(parsed_args), "nodes")
    return [name for name in names if name.startswith(prefix)]


def _node_prefixes(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    return [f"{name}:" for name in node_names(prefix, parsed_args)]


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:  # noqa: SLF001 -- argparse has no public way to list them
        yield action
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 -- likewise
            for part in action.choices.values():
                yield from _actions(part)


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:  # a quote that is open still
        return line.split()


def _inventory(arguments: argparse.Namespace) -> Path | None:
    """Find the inventory; `--config` need not have been parsed, or be a path, midway in a line."""
    given = getattr(arguments, "config", None)
    try:
        return find_inventory(Path(given).expanduser() if given else None)
    except (UsageError, RuntimeError):
        return None


def _names(path: Path | None, kind: str) -> list[str]:
    """List the tables of a kind, whatever else is wrong with the file."""
    try:
        table = tomllib.loads("" if path is None else path.read_text(encoding="utf-8"))[kind]
    except (OSError, ValueError, KeyError):
        return []
    return list(table) if isinstance(table, dict) else []
